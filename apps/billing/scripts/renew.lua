-- Keeps running requests alive: their leases, and their holds where a rebuild did not know of them, or not how far
-- they had grown.
-- ARGV: 2 generation known to the caller, 3 hold lifetime (ms), 4 lease lifetime (ms), then request, packed hold ...
-- Every request named must be running, seen after the caller learned of this generation: then no rebuild counted it.
-- Answers the generation in force, '' when the money is not known.
local state = redis.call('HMGET', money, 'balance', 'generation')
local generation = state[1] and state[2] or ''
local is_same = generation ~= '' and generation == ARGV[2]
for position = 5, #ARGV, 2 do
  local id, packed = ARGV[position], ARGV[position + 1]
  if not redis.call('ZSCORE', settled, id) then
    local hold = unpack_hold(packed)
    for letter, what in string.gmatch(hold.flags, '(%a)(%a)') do
      if what == 'c' then
        local lease = base .. 'lease:' .. owner_name(letter, hold)
        redis.call('ZADD', lease, now_ms + tonumber(ARGV[4]), id)
        redis.call('PEXPIRE', lease, 86400000)
      end
    end
    local known = redis.call('HGET', holds, id)
    if known then
      local there = unpack_hold(known)
      if complete_hold(there, hold) then redis.call('HSET', holds, id, pack_hold(there)) end
      if generation ~= '' then raise_hold(id, there, hold.nanos) end
      redis.call('ZADD', expiry, now_ms + tonumber(ARGV[3]), id)
    elseif is_same then
      redis.call('HSET', holds, id, packed)
      redis.call('ZADD', expiry, now_ms + tonumber(ARGV[3]), id)
      change_held(hold, 1)
    end
  end
end
return generation
