-- The money and limits of one organization: what every script shares. Put in front of each of them.
-- KEYS[1] is crun:{ORGANIZATION}:money; every other key differs in its last word only, so all share one hash slot.
-- ARGV[1] is the run id of the server. A server that was restarted, or a replica that took over, has another one:
-- what it remembers may be older than what it once confirmed, so all of it is dropped and rebuilt from the truth.
-- Amounts are integers below 2^53; they are written with %.0f, because Lua's own way loses digits above 10^14.
local money, base = KEYS[1], string.sub(KEYS[1], 1, -6)
local holds, expiry, spend = base .. 'holds', base .. 'expiry', base .. 'spend'
local settled, pending, epoch = base .. 'settled', base .. 'pending', base .. 'epoch'
local time = redis.call('TIME')
local second = tonumber(time[1])
local now_ms = second * 1000 + math.floor(tonumber(time[2]) / 1000)

if redis.call('GET', epoch) ~= ARGV[1] then
  redis.call('DEL', money, holds, expiry, spend, settled, pending)
  redis.call('SET', epoch, ARGV[1])
end

local function int(number)
  return string.format('%.0f', number)
end

-- A hold as text: nanos|tokens|second|flags|key|project. Flags say what else was taken: t, c after each owner's letter.
local function unpack_hold(packed)
  local nanos, tokens, at, flags, key, project = string.match(packed, '^(%d+)|(%d+)|(%d+)|(%a*)|([^|]*)|([^|]*)$')
  return {nanos = tonumber(nanos), tokens = tonumber(tokens), at = tonumber(at), flags = flags, key = key,
    project = project}
end

local function owner_name(letter, key, project)
  if letter == 'k' then return 'k:' .. key elseif letter == 'p' then return 'p:' .. project end
  return 'o'
end

local function change_held(hold, sign)
  local change = int(sign * hold.nanos)
  redis.call('HINCRBY', money, 'held', change)
  redis.call('HINCRBY', spend, 'k:' .. hold.key .. '|held', change)
  redis.call('HINCRBY', spend, 'p:' .. hold.project .. '|held', change)
end

-- Removes a hold and returns it; nil when there is none. Sums are kept only while the money state is there.
local function drop_hold(id, is_known)
  local packed = redis.call('HGET', holds, id)
  if not packed then return nil end
  redis.call('HDEL', holds, id)
  redis.call('ZREM', expiry, id)
  local hold = unpack_hold(packed)
  if is_known then change_held(hold, -1) end
  return hold
end

-- Moves balance and spend by what a request cost; sign -1 takes it back. `starts` is day, week, month in Unix seconds.
local function charge(cost, key, project, starts, sign)
  local change = int(sign * cost)
  redis.call('HINCRBY', money, 'balance', int(-sign * cost))
  for _, owner in ipairs({'k:' .. key, 'p:' .. project, 'o'}) do
    redis.call('HINCRBY', spend, owner .. '|day|' .. starts[1], change)
    redis.call('HINCRBY', spend, owner .. '|week|' .. starts[2], change)
    redis.call('HINCRBY', spend, owner .. '|month|' .. starts[3], change)
    redis.call('HINCRBY', spend, owner .. '|lifetime|0', change)
  end
end

-- A settled request that the money state does not contain yet: cost|key|project|day|week|month.
local function charge_pending(packed, sign)
  local cost, key, project, day, week, month =
    string.match(packed, '^(%d+)|([^|]*)|([^|]*)|(%d+)|(%d+)|(%d+)$')
  charge(tonumber(cost), key, project, {day, week, month}, sign)
end
