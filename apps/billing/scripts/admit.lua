-- Admits one request against money, budgets, rates and concurrency at once, or changes nothing.
-- ARGV: 2 request, 3 key, 4 project, 5 most nanos, 6 least nanos, 7 tokens, 8 hold lifetime (ms), 9 lease lifetime (ms),
--   10 day, 11 week, 12 month (their starts), limits, '' for none: 13 of the key, 14 of the project, 15 of the
--   organization, 17 of the organization on the model 16; 18 the site whose journals will know it; 19 least tokens:
--   below 7 when the request can be cut to what the minute has left; 20 there when the request was admitted before and
--   goes on with another model: what it held is given back first, and it is still one request of its key, project and
--   organization.
-- Answers {1, generation, packed hold, numbers...} admitted, {0, what, whose, limit, retry ms, numbers...} refused,
--   {-1} the money is not known here: rebuild it, {-2} this request was given up already.
-- Numbers: requests limit, left, reset ms; tokens limit, left, reset ms; nanos left. -1 where there is none. Then, where
--   all of it was taken, the balance without what is held.
local id, key, project = ARGV[2], ARGV[3], ARGV[4]
local asks = {key = key, project = project, model = ARGV[16]}
local most, least, tokens = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local starts = {day = ARGV[10], week = ARGV[11], month = ARGV[12], lifetime = '0'}

local is_again = ARGV[20]
if is_again then
  local is_known = redis.call('HEXISTS', money, 'balance') == 1
  local before = is_known and drop_hold(id, true)
  if before then give_back(id, before, before.flags, 0) end
end
local function counted(owner)
  return is_again and owner.letter ~= 'm' and 0 or 1
end

local state = redis.call('HMGET', money, 'balance', 'credit', 'held', 'generation')
if not state[1] then return {-1} end
if redis.call('ZSCORE', settled, id) then return {-2} end
local lost = redis.call('ZRANGEBYSCORE', expiry, '-inf', now_ms, 'LIMIT', 0, 1)
if #lost > 0 then
  -- Nobody renewed or settled it in time: a rebuild finds out what became of it, and of all others like it.
  redis.call('DEL', money)
  return {-1}
end

-- Who has limits --------------------------------------------------------------------------------------------------
local owners = {}
for position, letter in ipairs({'k', 'p', 'o', '', 'm'}) do
  local packed = ARGV[12 + position]
  if letter ~= '' and packed ~= '' then
    owners[#owners + 1] = read_owner(letter, owner_name(letter, asks), packed)
  end
end

-- Money -----------------------------------------------------------------------------------------------------------
local room, tightest = find_room(state, owners, starts)
local hold = most
local is_short = false
if most > 0 and room < most then
  if least < most and room >= least then hold = room else is_short = true end
end

-- Rates and concurrency -------------------------------------------------------------------------------------------
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
    if owner.tpm then tokens = math.min(tokens, owner.tpm - owner.tokens) end
  end
end
tokens = math.max(tokens, tonumber(ARGV[19]))
for _, owner in ipairs(owners) do
  if owner.rpm or owner.tpm or owner.rpd then
    if owner.rpd and owner.day_requests + counted(owner) > owner.rpd then
      refuse('requests_per_day', owner, owner.rpd, (math.floor(second / 86400) + 1) * 86400000 - now_ms)
    end
    if owner.rpm and owner.requests + counted(owner) > owner.rpm then
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
    local left = math.max(owner.rpm - owner.requests - taken * counted(owner), 0)
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
    count_now(owner, counted(owner), tokens)
    flags = flags .. owner.letter .. 't'
  end
  if owner.lease then
    redis.call('ZADD', owner.lease, now_ms + tonumber(ARGV[9]), id)
    redis.call('PEXPIRE', owner.lease, 86400000)
    flags = flags .. owner.letter .. 'c'
  end
end
local packed = pack_hold({nanos = hold, tokens = tokens, at = second, flags = flags, key = key, project = project,
  model = string.find(flags, 'm', 1, true) and ARGV[16] or '', site = ARGV[18] or ''})
redis.call('HSET', holds, id, packed)
redis.call('ZADD', expiry, now_ms + tonumber(ARGV[8]), id)
change_held({nanos = hold, key = key, project = project}, 1)
numbers[#numbers + 1] = tonumber(state[1])
return {1, state[4], packed, unpack(numbers)}
