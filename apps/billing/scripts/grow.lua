-- Makes the hold of a running request larger: as large as it wants, or by as much as there is.
-- ARGV: 2 request, 3 its packed hold as its gateway knows it, 4 wanted nanos in all, 5 tokens more, 6 hold lifetime (ms),
--   7 day, 8 week, 9 month (their starts), limits, '' for none: 10 of the key, 11 of the project, 12 of the organization.
-- Answers {1, generation, packed hold} it has what it wants, {0, generation, packed hold, what, whose, limit, retry ms}
--   it has what there is, {-1} the money is not known here: rebuild it, {-2} the request has ended,
--   {-3, generation} its hold is not known: renew it first.
-- Tokens are counted in the second in which they are asked for; no rate ends an answer that runs.
local id = ARGV[2]
local wanted, tokens = tonumber(ARGV[4]), tonumber(ARGV[5])
local starts = {day = ARGV[7], week = ARGV[8], month = ARGV[9], lifetime = '0'}

local state = redis.call('HMGET', money, 'balance', 'credit', 'held', 'generation')
if not state[1] then return {-1} end
if redis.call('ZSCORE', settled, id) then return {-2} end
local packed = redis.call('HGET', holds, id)
if not packed then return {-3, state[4]} end
local hold = unpack_hold(packed)
local granted = unpack_hold(ARGV[3])
complete_hold(hold, granted)
if granted.nanos > hold.nanos then
  raise_hold(id, hold, granted.nanos)
  state = redis.call('HMGET', money, 'balance', 'credit', 'held', 'generation')
end

local owners = {}
for position, letter in ipairs({'k', 'p', 'o'}) do
  if ARGV[9 + position] ~= '' then
    owners[#owners + 1] = read_owner(letter, owner_name(letter, hold), ARGV[9 + position])
  end
end
local room, tightest = find_room(state, owners, starts)
local more = math.max(math.min(wanted - hold.nanos, room), 0)
if more > 0 then
  hold.tokens = hold.tokens + tokens
  raise_hold(id, hold, hold.nanos + more)
  for letter, what in string.gmatch(hold.flags, '(%a)(%a)') do
    if what == 't' then
      local owner = {name = owner_name(letter, hold)}
      read_window(owner)
      count_now(owner, 0, tokens)
    end
  end
end
redis.call('ZADD', expiry, now_ms + tonumber(ARGV[6]), id)
if hold.nanos >= wanted then return {1, state[4], pack_hold(hold)} end
return {0, state[4], pack_hold(hold), tightest.what, tightest.letter, tightest.limit,
  tightest.held > hold.nanos and 1000 or 0}
