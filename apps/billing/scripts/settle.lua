-- Ends one request: releases what it held, moves balance and spend, once for each request however often it is called.
-- ARGV: 2 request, 3 key, 4 project, 5 cost (nanos), 6 tokens, 7 day, 8 week, 9 month (their starts).
-- Answers {1, generation} settled, {2, generation} was settled before,
--   {3, generation} remembered: the hold is gone or the money is not known, so the next rebuild decides what it changes.
local KEPT_MS, KEPT_IDS = 900000, 100000
local id, key, project = ARGV[2], ARGV[3], ARGV[4]
local cost, tokens = tonumber(ARGV[5]), tonumber(ARGV[6])

local state = redis.call('HMGET', money, 'balance', 'generation', 'good_until')
local is_known = state[1] and true or false
local generation = state[2] or ''
if redis.call('ZADD', settled, 'NX', now_ms, id) == 0 then
  return {2, generation}
end
local must_count_again = false
if tonumber(time[2]) % 16 == 0 then
  must_count_again = is_known and tonumber(state[3] or now_ms) < now_ms
  redis.call('ZREMRANGEBYSCORE', settled, '-inf', now_ms - KEPT_MS)
  redis.call('ZREMRANGEBYRANK', settled, 0, -KEPT_IDS - 1)
  redis.call('PEXPIRE', settled, 4 * KEPT_MS)
end

local hold = drop_hold(id, is_known)
give_back(id, hold or {key = key, project = project}, hold and hold.flags or 'kcpcoc', tokens)
if cost == 0 then
  return {1, generation}
end
local packed = table.concat({int(cost), key, project, ARGV[7], ARGV[8], ARGV[9]}, '|')
remember_unrecorded(id, packed)
if hold and is_known then
  charge(cost, key, project, {ARGV[7], ARGV[8], ARGV[9]}, 1)
  if must_count_again then redis.call('DEL', money) end
  return {1, generation}
end
redis.call('HSET', pending, id, packed)
if is_known then
  redis.call('DEL', money)
end
return {3, generation}
