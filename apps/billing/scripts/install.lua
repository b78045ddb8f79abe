-- Rebuilding the money state. ARGV: 2 step, 3 token of the rebuild.
-- begin: 4 how long it may take (ms). Answers 0 the state is there, 1 somebody else rebuilds it, 2 go on.
--   The token lies in the money key itself, so whatever drops that key meanwhile also ends this rebuild.
-- go_on: 4 how long it may still take (ms). Answers whether the rebuild is still wanted.
-- ended: 4 JSON: recorded [id], closed [[id, packed cost or '']], lost [id]. What has ended holds nothing and is settled;
--   balance and spend will contain the first two. Closed ones have no record yet: other machines must hear of them. A
--   lost one is unknown to all who could know it. True whatever becomes of the rebuild, so it may come in parts.
--   Answers whether the rebuild is still wanted.
-- install: 4 balance, 5 credit, 6 hold lifetime (ms), 7 JSON: open [[id, packed hold]], kept [[id, until (ms)]],
--   examined [id], spend {field: nanos}; 8 for how long the state may be used (ms). `examined` are pending requests
--   that were looked for among what balance and spend contain; `kept` are holds that expired and that another machine
--   may know. Answers {1, ids that settled meanwhile and were not examined...}, {0} when it must not.
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

local is_wanted = redis.call('HGET', money, 'building') == token and redis.call('HEXISTS', money, 'balance') == 0
if step == 'go_on' then
  if is_wanted then redis.call('HSET', money, 'building_until', int(now_ms + tonumber(ARGV[4]))) end
  return is_wanted and 1 or 0
end

-- Whether nobody renewed the hold of this request in time; `now` if it has none.
local function has_expired(id)
  local at = redis.call('ZSCORE', expiry, id)
  return not at or tonumber(at) <= now_ms
end

if step == 'ended' then
  if not is_wanted then return 0 end
  local function note_ended(id)
    drop_hold(id, false)
    redis.call('HDEL', pending, id)
    redis.call('ZADD', settled, 'NX', now_ms, id)
  end
  local found = cjson.decode(ARGV[4])
  for _, id in ipairs(found.recorded) do
    note_ended(id)
    redis.call('HDEL', unrecorded, id)
  end
  for _, entry in ipairs(found.closed) do
    note_ended(entry[1])
    if entry[2] ~= '' then remember_unrecorded(entry[1], entry[2]) end
  end
  for _, id in ipairs(found.lost) do
    if has_expired(id) then drop_hold(id, false) end
  end
  return 1
end

if not is_wanted then return {0} end
local found = cjson.decode(ARGV[7])
for _, entry in ipairs(found.open) do
  local id = entry[1]
  if not redis.call('ZSCORE', settled, id) then
    if redis.call('HSETNX', holds, id, entry[2]) == 1 or has_expired(id) then
      redis.call('ZADD', expiry, now_ms + tonumber(ARGV[6]), id)
    end
  end
end
for _, entry in ipairs(found.kept) do
  if redis.call('HEXISTS', holds, entry[1]) == 1 and has_expired(entry[1]) then
    redis.call('ZADD', expiry, entry[2], entry[1])
  end
end
redis.call('DEL', money, spend)
redis.call('HSET', money, 'balance', ARGV[4], 'credit', ARGV[5], 'held', 0, 'generation', token,
  'good_until', int(now_ms + tonumber(ARGV[8])))
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
