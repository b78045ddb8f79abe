-- Reads what one key, its project and its organization have and have left. Changes nothing.
-- ARGV: 2 key, 3 project, 4 day, 5 week, 6 month (their starts), 7 limits of the key, 8 of the project, 9 of the
--   organization, as the admission script takes them.
-- Answers {1, balance, credit, held, the key's: held, day, week, month, lifetime, the organization's lifetime
--   with what re-ratings corrected, then
--   what is left of the budgets of key, project and organization (-1: no budget), requests limit, left, reset ms;
--   tokens limit, left, reset ms of the owner that has least (-1: none)}, {-1} when the money is not known.
local asks = {key = ARGV[2], project = ARGV[3]}
local starts = {day = ARGV[4], week = ARGV[5], month = ARGV[6], lifetime = '0'}

local state = redis.call('HMGET', money, 'balance', 'credit', 'held')
if not state[1] then return {-1} end
local answer = {1, tonumber(state[1]), tonumber(state[2]), tonumber(state[3])}
local mine = owner_name('k', asks)
local sums = redis.call('HMGET', spend, mine .. '|held', mine .. '|day|' .. starts.day, mine .. '|week|' .. starts.week,
  mine .. '|month|' .. starts.month, mine .. '|lifetime|0', 'o|lifetime|0')
for position = 1, 6 do answer[#answer + 1] = tonumber(sums[position] or 0) end
answer[#answer] = answer[#answer] + tonumber(redis.call('HGET', spend, 'o|corrected') or 0)

-- How many of a rate's buckets still count, without tidying up.
local function used(name, letter)
  local fields = {}
  for at = second - WINDOW_S, second do fields[#fields + 1] = letter .. int(at) end
  local total = 0
  for _, count in ipairs(redis.call('HMGET', base .. 'rate:' .. name, unpack(fields))) do
    total = total + tonumber(count or 0)
  end
  return total
end

local windows = {r = {-1, -1, -1}, t = {-1, -1, -1}}
local function narrow(letter, limit, name)
  if not limit then return end
  local left = math.max(limit - used(name, letter), 0)
  if windows[letter][1] < 0 or left < windows[letter][2] then
    windows[letter] = {limit, left, (second + WINDOW_S + 1) * 1000 - now_ms}
  end
end

for position, letter in ipairs({'k', 'p', 'o'}) do
  local left = -1
  local packed = ARGV[6 + position]
  if packed ~= '' then
    local rpm, tpm, _, _, budget, period = string.match(packed, '^(%d*),(%d*),(%d*),(%d*),(%d*),(%a*)')
    local name = owner_name(letter, asks)
    if budget ~= '' then
      local spent = redis.call('HMGET', spend, name .. '|' .. period .. '|' .. starts[period], name .. '|held')
      local owner_held = letter == 'o' and tonumber(state[3]) or tonumber(spent[2] or 0)
      left = math.max(tonumber(budget) - tonumber(spent[1] or 0) - owner_held, 0)
    end
    narrow('r', tonumber(rpm), name)
    narrow('t', tonumber(tpm), name)
  end
  answer[#answer + 1] = left
end
for _, letter in ipairs({'r', 't'}) do
  for _, number in ipairs(windows[letter]) do answer[#answer + 1] = number end
end
return answer
