-- Keeps an answer in place of the one that may be there. KEYS[1] is crun:{ORGANIZATION}:cache:NAME.
-- ARGV: 2 the answer, 3 for how many ms, 4 most bytes of the organization, 5 most bytes of all.
-- Answers 1, or 0: there is no room for one so large.
local key, answer, ttl_ms = KEYS[1], ARGV[2], tonumber(ARGV[3])
local before = redis.call('STRLEN', key)
if before > 0 then leave_room(key .. '|' .. int(taken_by(before))) end
if not make_room(owner_of(key), string.len(answer), tonumber(ARGV[4]), tonumber(ARGV[5])) then
  redis.call('DEL', key)
  return 0
end
redis.call('SET', key, answer, 'PX', ttl_ms)
take_room(key, string.len(answer), ttl_ms)
return 1
