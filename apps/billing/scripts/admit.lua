-- Admits one request against money, budgets, rates and concurrency at once, or changes nothing.
-- ARGV: 2 request, 3 key, 4 project, 5 most nanos, 6 least nanos, 7 tokens, 8 hold lifetime (ms), 9 lease lifetime (ms),
--   10 day, 11 week, 12 month (their starts), 13 limits of the key, 14 of the project, 15 of the organization,
--   each '' or requests/minute,tokens/minute,requests/day,concurrency,budget,period with '' for none.
-- Answers {1, generation, packed hold, numbers...} admitted, {0, what, whose, limit, retry ms, numbers...} refused,
--   {-1} the money is not known here: rebuild it, {-2} this request was given up already.
-- Numbers: requests limit, left, reset ms; tokens limit, left, reset ms; nanos left. -1 where there is none.
local WINDOW_S = 60
local id, key, project = ARGV[2], ARGV[3], ARGV[4]
local most, least, tokens = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local starts = {day = ARGV[10], week = ARGV[11], month = ARGV[12], lifetime = '0'}

local state = redis.call('HMGET', money, 'balance', 'credit', 'held', 'generation')
if not state[1] then return {-1} end
if redis.call('ZSCORE', settled, id) then return {-2} end
local lost = redis.call('ZRANGEBYSCORE', expiry, '-inf', now_ms, 'LIMIT', 0, 100)
if #lost > 0 then
  -- Nobody settled them in time: only the records know what they cost.
  for _, request in ipairs(lost) do
    redis.call('HDEL', holds, request)
    redis.call('ZREM', expiry, request)
  end
  redis.call('DEL', money)
  return {-1}
end

-- Who has limits --------------------------------------------------------------------------------------------------
local owners = {}
for position, letter in ipairs({'k', 'p', 'o'}) do
  local packed = ARGV[12 + position]
  if packed ~= '' then
    local rpm, tpm, rpd, concurrency, budget, period =
      string.match(packed, '^(%d*),(%d*),(%d*),(%d*),(%d*),(%a*)$')
    owners[#owners + 1] = {letter = letter, name = owner_name(letter, key, project), rpm = tonumber(rpm),
      tpm = tonumber(tpm), rpd = tonumber(rpd), concurrency = tonumber(concurrency), budget = tonumber(budget),
      period = period}
  end
end

-- Money -----------------------------------------------------------------------------------------------------------
local held = tonumber(state[3])
local room = tonumber(state[1]) + tonumber(state[2]) - held
local tightest = {letter = 'o', what = 'balance', limit = tonumber(state[1]) + tonumber(state[2]), held = held}
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
local hold = most
local is_short = false
if most > 0 and room < most then
  if least < most and room >= least then hold = room else is_short = true end
end

-- Rates and concurrency -------------------------------------------------------------------------------------------
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

-- Milliseconds until so many requests or tokens have left the window.
local function wait_ms(owner, field, excess)
  for at = owner.oldest, second do
    excess = excess - tonumber(redis.call('HGET', owner.rate, field .. int(at)) or 0)
    if excess <= 0 then return (at + WINDOW_S + 1) * 1000 - now_ms end
  end
  return WINDOW_S * 1000
end

local refusal = nil
local function refuse(what, owner, limit, retry_ms)
  refusal = refusal or {0, what, owner.letter, limit, retry_ms}
end

if is_short then
  -- What running requests hold may come back: then trying again helps.
  local retry_ms = room + tightest.held >= least and 1000 or 0
  refuse(tightest.what, tightest, tightest.limit, retry_ms)
end
for _, owner in ipairs(owners) do
  if owner.rpm or owner.tpm or owner.rpd then
    read_window(owner)
    if owner.rpd and owner.day_requests + 1 > owner.rpd then
      refuse('requests_per_day', owner, owner.rpd, (math.floor(second / 86400) + 1) * 86400000 - now_ms)
    end
    if owner.rpm and owner.requests + 1 > owner.rpm then
      refuse('requests_per_minute', owner, owner.rpm, wait_ms(owner, 'r', owner.requests + 1 - owner.rpm))
    end
    if owner.tpm and owner.tokens + tokens > owner.tpm then
      refuse('tokens_per_minute', owner, owner.tpm, wait_ms(owner, 't', owner.tokens + tokens - owner.tpm))
    end
  end
  if owner.concurrency then
    owner.lease = base .. 'lease:' .. owner.name
    redis.call('ZREMRANGEBYSCORE', owner.lease, '-inf', now_ms)
    if redis.call('ZCARD', owner.lease) >= owner.concurrency then
      refuse('concurrency', owner, owner.concurrency, 1000)
    end
  end
end

-- The numbers for the caller: of the owner that has least left ------------------------------------------------------
local taken = refusal and 0 or 1
local reset = (second + WINDOW_S + 1) * 1000 - now_ms
local numbers = {-1, -1, -1, -1, -1, -1, math.max(room - taken * hold, 0)}
for _, owner in ipairs(owners) do
  if owner.rpm then
    local left = math.max(owner.rpm - owner.requests - taken, 0)
    if numbers[1] < 0 or left < numbers[2] then numbers[1], numbers[2], numbers[3] = owner.rpm, left, reset end
  end
  if owner.tpm then
    local left = math.max(owner.tpm - owner.tokens - taken * tokens, 0)
    if numbers[4] < 0 or left < numbers[5] then numbers[4], numbers[5], numbers[6] = owner.tpm, left, reset end
  end
end
if refusal then
  for _, number in ipairs(numbers) do refusal[#refusal + 1] = number end
  return refusal
end

-- Take it all -----------------------------------------------------------------------------------------------------
local flags = ''
for _, owner in ipairs(owners) do
  if owner.rate then
    redis.call('HSET', owner.rate, 'oldest', int(owner.oldest), 'last', int(owner.last),
      'requests', int(owner.requests + 1), 'tokens', int(owner.tokens + tokens),
      'day', int(math.floor(second / 86400)), 'day_requests', int(owner.day_requests + 1))
    redis.call('HINCRBY', owner.rate, 'r' .. int(second), 1)
    redis.call('HINCRBY', owner.rate, 't' .. int(second), int(tokens))
    redis.call('PEXPIRE', owner.rate, 172800000)
    flags = flags .. owner.letter .. 't'
  end
  if owner.lease then
    redis.call('ZADD', owner.lease, now_ms + tonumber(ARGV[9]), id)
    redis.call('PEXPIRE', owner.lease, 86400000)
    flags = flags .. owner.letter .. 'c'
  end
end
local packed = table.concat({int(hold), int(tokens), int(second), flags, key, project}, '|')
redis.call('HSET', holds, id, packed)
redis.call('ZADD', expiry, now_ms + tonumber(ARGV[8]), id)
change_held({nanos = hold, key = key, project = project}, 1)
return {1, state[4], packed, unpack(numbers)}
