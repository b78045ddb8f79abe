-- Rebuilding the money state. ARGV: 2 step, 3 token of the rebuild.
-- begin: 4 how long it may take (ms). Answers 0 the state is there, 1 somebody else rebuilds it, 2 go on.
--   The token lies in the money key itself, so whatever drops that key meanwhile also ends this rebuild.
-- install: 4 balance, 5 credit, 6 hold lifetime (ms), 7 JSON: open [[id, packed hold]], counted [id], examined [id],
--   spend {field: nanos}. `counted` are settled requests that balance and spend contain, `examined` those that were
--   looked for among them. Answers {1, ids that settled meanwhile and were not examined...}, {0} when it must not.
-- correct: 4 JSON [id]: requests of the last answer that balance and spend did contain after all.
local step, token = ARGV[2], ARGV[3]

if step == 'begin' then
  local state = redis.call('HMGET', money, 'balance', 'building', 'building_until')
  if state[1] then return 0 end
  if state[2] and state[2] ~= token and tonumber(state[3]) > now_ms then return 1 end
  redis.call('HSET', money, 'building', token, 'building_until', int(now_ms + tonumber(ARGV[4])))
  return 2
end

if step == 'correct' then
  if redis.call('HGET', money, 'generation') ~= token or not redis.call('HGET', money, 'balance') then return 0 end
  for _, id in ipairs(cjson.decode(ARGV[4])) do
    local packed = redis.call('HGET', pending, id)
    if packed then
      charge_pending(packed, -1)
      redis.call('HDEL', pending, id)
    end
  end
  return 1
end

if redis.call('HGET', money, 'building') ~= token or redis.call('HEXISTS', money, 'balance') == 1 then return {0} end
local found = cjson.decode(ARGV[7])
for _, id in ipairs(found.counted) do
  drop_hold(id, false)
  redis.call('HDEL', pending, id)
  redis.call('ZADD', settled, 'NX', now_ms, id)
end
for _, entry in ipairs(found.open) do
  if not redis.call('ZSCORE', settled, entry[1]) and redis.call('HSETNX', holds, entry[1], entry[2]) == 1 then
    redis.call('ZADD', expiry, now_ms + tonumber(ARGV[6]), entry[1])
  end
end
redis.call('DEL', money, spend)
redis.call('HSET', money, 'balance', ARGV[4], 'credit', ARGV[5], 'held', 0, 'generation', token)
for field, nanos in pairs(found.spend) do
  redis.call('HSET', spend, field, nanos)
end
local every_hold = redis.call('HVALS', holds)
for _, packed in ipairs(every_hold) do
  change_held(unpack_hold(packed), 1)
end
local examined, answer = {}, {1}
for _, id in ipairs(found.examined) do examined[id] = true end
local settled_meanwhile = redis.call('HGETALL', pending)
for position = 1, #settled_meanwhile, 2 do
  charge_pending(settled_meanwhile[position + 1], 1)
  if not examined[settled_meanwhile[position]] then answer[#answer + 1] = settled_meanwhile[position] end
end
return answer
