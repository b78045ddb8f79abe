-- Ends a claim; doing it again changes nothing.
-- ARGV: 2 name, 3 body, 4 request, 5 kept for ms, 6 free | kept | spent, 7 cost (nanos), 8 the answer, or why there is
--   none, 9 most bytes of all answers of the organization, 10 of all of everybody. Answers 1, or 0: the key is somebody else's, or has ended.
local name, body, request, state, cost = ARGV[2], ARGV[3], ARGV[4], ARGV[6], ARGV[7]
local ttl_ms = tonumber(ARGV[5])
local entry = entry_of(name)
local found = redis.call('HMGET', entry, 'request', 'state')
if found[1] and (found[1] ~= request or found[2] ~= 'running') then return 0 end
if state == 'free' then
  redis.call('DEL', entry)
  redis.call('ZREM', ends, name)
  return 1
end

local why, size = ARGV[8], string.len(ARGV[8])
if state == 'kept' and not make_room(owner_of(entry), size, tonumber(ARGV[9]), tonumber(ARGV[10])) then
  state, why = 'spent', 'large'
end
redis.call('HSET', entry, 'body', body, 'request', request, 'state', state, 'cost', cost)
redis.call('HDEL', entry, 'lease')
remember(name, ttl_ms)
if state == 'spent' then
  redis.call('HSET', entry, 'why', why)
  return 1
end
redis.call('HSET', entry, 'answer', ARGV[8])
take_room(entry, size, ttl_ms)
return 1
