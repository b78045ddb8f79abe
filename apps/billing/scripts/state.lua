-- The money and limits of one organization: what every script shares. Put in front of each of them.
-- KEYS[1] is crun:{ORGANIZATION}:money; every other key differs in its last word only, so all share one hash slot.
-- ARGV[1] is the run id of the server. A server that was restarted, or a replica that took over, has another one:
-- what it remembers may be older than what it once confirmed, so all of it is dropped and rebuilt from the truth.
-- Amounts are integers below 2^53; they are written with %.0f, because Lua's own way loses digits above 10^14.
local money, base = KEYS[1], string.sub(KEYS[1], 1, -6)
local holds, expiry, spend = base .. 'holds', base .. 'expiry', base .. 'spend'
local settled, pending, epoch = base .. 'settled', base .. 'pending', base .. 'epoch'
local unrecorded = base .. 'unrecorded'
local time = redis.call('TIME')
local second = tonumber(time[1])
local now_ms = second * 1000 + math.floor(tonumber(time[2]) / 1000)

if redis.call('GET', epoch) ~= ARGV[1] then
  redis.call('DEL', money, holds, expiry, spend, settled, pending, unrecorded)
  redis.call('SET', epoch, ARGV[1])
end

local function int(number)
  return string.format('%.0f', number)
end

-- A hold as text: nanos|tokens|second|flags|key|project|model|site. Flags say what else was taken: t, c after each
-- owner's letter. The model is there only where it has limits. The site names the journals that know the request: those
-- of one machine. Holds of older versions end with the project or the model.
local function unpack_hold(packed)
  local nanos, tokens, at, flags, key, project, model, site =
    string.match(packed, '^(%d+)|(%d+)|(%d+)|(%a*)|([^|]*)|([^|]*)|?([^|]*)|?([^|]*)$')
  return {nanos = tonumber(nanos), tokens = tonumber(tokens), at = tonumber(at), flags = flags, key = key,
    project = project, model = model, site = site}
end

local function pack_hold(hold)
  return table.concat({int(hold.nanos), int(hold.tokens), int(hold.at), hold.flags, hold.key, hold.project,
    hold.model, hold.site}, '|')
end

local function owner_name(letter, hold)
  if letter == 'k' then return 'k:' .. hold.key elseif letter == 'p' then return 'p:' .. hold.project
  elseif letter == 'm' then return 'm:' .. hold.model end
  return 'o'
end

local function change_held(hold, sign)
  local change = int(sign * hold.nanos + 0)  -- of a hold of 0 the negative is -0, which Redis takes for no integer
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

-- Makes the tokens that a hold reserved those that were used, unless their second has left the window, and gives back
-- its places among the running requests. `flags` are the hold's.
local function give_back(id, hold, flags, tokens)
  for letter, what in string.gmatch(flags, '(%a)(%a)') do
    local name = owner_name(letter, hold)
    if what == 'c' then
      redis.call('ZREM', base .. 'lease:' .. name, id)
    elseif tokens ~= hold.tokens then
      local rate, bucket = base .. 'rate:' .. name, 't' .. int(hold.at)
      if redis.call('HEXISTS', rate, bucket) == 1 then
        redis.call('HINCRBY', rate, bucket, int(tokens - hold.tokens))
        redis.call('HINCRBY', rate, 'tokens', int(tokens - hold.tokens))
      end
    end
  end
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

-- Most settled requests of one organization that are remembered until they have records. Beyond that only the journals
-- of their own machine know them.
local KEPT_UNRECORDED = 50000

-- Remembers what a request cost until it has a record, for rebuilds by machines that cannot read its journal.
local function remember_unrecorded(id, packed)
  if redis.call('HLEN', unrecorded) < KEPT_UNRECORDED then redis.call('HSETNX', unrecorded, id, packed) end
end

-- What a settled request cost, in `pending` and `unrecorded`: cost|key|project|day|week|month.
local function charge_pending(packed, sign)
  local cost, key, project, day, week, month =
    string.match(packed, '^(%d+)|([^|]*)|([^|]*)|(%d+)|(%d+)|(%d+)$')
  charge(tonumber(cost), key, project, {day, week, month}, sign)
end

-- A rebuild knows only the money of a hold; the gateway that was granted it knows the rest. Whether that was missing.
local function complete_hold(hold, granted)
  if hold.flags ~= '' or granted.flags == '' then return false end
  hold.tokens, hold.at, hold.flags, hold.model = granted.tokens, granted.at, granted.flags, granted.model
  return true
end

-- Makes a hold that is smaller than what its gateway was granted as large as that. Holds never shrink.
local function raise_hold(id, hold, nanos)
  local change = nanos - hold.nanos
  if change <= 0 then return end
  hold.nanos = nanos
  redis.call('HSET', holds, id, pack_hold(hold))
  change_held({nanos = change, key = hold.key, project = hold.project}, 1)
end

-- Limits as text: requests/minute,tokens/minute,requests/day,concurrency,budget,period with '' for none.
local function read_owner(letter, name, packed)
  local rpm, tpm, rpd, concurrency, budget, period = string.match(packed, '^(%d*),(%d*),(%d*),(%d*),(%d*),(%a*)$')
  return {letter = letter, name = name, rpm = tonumber(rpm), tpm = tonumber(tpm), rpd = tonumber(rpd),
    concurrency = tonumber(concurrency), budget = tonumber(budget), period = period}
end

-- What can still be held, and what says so: the balance, or the budget that has least left. `state` is balance, credit
-- and held; `starts` are those of the periods, in Unix seconds.
local function find_room(state, owners, starts)
  local held = tonumber(state[3])
  local limit = tonumber(state[1]) + tonumber(state[2])
  local room = limit - held
  local tightest = {letter = 'o', what = 'balance', limit = limit, held = held}
  for _, owner in ipairs(owners) do
    if owner.budget then
      local sums = redis.call('HMGET', spend, owner.name .. '|' .. owner.period .. '|' .. starts[owner.period],
        owner.name .. '|held')
      local owner_held = owner.letter == 'o' and held or tonumber(sums[2] or 0)
      local left = owner.budget - tonumber(sums[1] or 0) - owner_held
      if left < room then
        room = left
        tightest = {letter = owner.letter, what = 'budget', limit = owner.budget, held = owner_held}
      end
    end
  end
  return room, tightest
end

local WINDOW_S = 60
local first = second - WINDOW_S

-- The window of an owner, without what is older than it. 61 buckets of a second cover any 60 s that end now.
local function read_window(owner)
  owner.rate = base .. 'rate:' .. owner.name
  local values = redis.call('HMGET', owner.rate, 'oldest', 'last', 'requests', 'tokens', 'day', 'day_requests')
  local oldest, last = tonumber(values[1]), tonumber(values[2])
  owner.requests, owner.tokens = tonumber(values[3] or 0), tonumber(values[4] or 0)
  owner.day_requests = values[5] == int(math.floor(second / 86400)) and tonumber(values[6]) or 0
  if not oldest or last < first or last > second + WINDOW_S then
    local kept = {values[5], values[6]}
    redis.call('DEL', owner.rate)
    if kept[1] then redis.call('HSET', owner.rate, 'day', kept[1], 'day_requests', kept[2]) end
    owner.requests, owner.tokens, owner.oldest, owner.last = 0, 0, second, second
    return
  end
  if oldest < first then
    for at = oldest, first - 1 do
      local bucket = redis.call('HMGET', owner.rate, 'r' .. int(at), 't' .. int(at))
      if bucket[1] then
        owner.requests = owner.requests - tonumber(bucket[1])
        owner.tokens = owner.tokens - tonumber(bucket[2])
        redis.call('HDEL', owner.rate, 'r' .. int(at), 't' .. int(at))
      end
    end
    oldest = first
    redis.call('HSET', owner.rate, 'oldest', int(oldest), 'requests', int(owner.requests), 'tokens', int(owner.tokens))
  end
  owner.oldest, owner.last = oldest, math.max(last, second)
end

-- Counts requests and tokens in this second, after `read_window`.
local function count_now(owner, requests, tokens)
  redis.call('HSET', owner.rate, 'oldest', int(owner.oldest), 'last', int(owner.last),
    'requests', int(owner.requests + requests), 'tokens', int(owner.tokens + tokens),
    'day', int(math.floor(second / 86400)), 'day_requests', int(owner.day_requests + requests))
  redis.call('HINCRBY', owner.rate, 'r' .. int(second), requests)
  redis.call('HINCRBY', owner.rate, 't' .. int(second), int(tokens))
  redis.call('PEXPIRE', owner.rate, 172800000)
end
