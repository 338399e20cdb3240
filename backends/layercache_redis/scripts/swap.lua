-- Replace a value if it is still the one that was read.
-- KEYS[1] the key   ARGV[1] what was read, '' for nothing (or nothing of ours)
-- ARGV[2] the new value   ARGV[3] its life in milliseconds, 0 for ever
-- Returns 1 when it was replaced, 0 when something else is there by now.
local current = ''
if redis.call('TYPE', KEYS[1]).ok == 'string' then
  current = redis.call('GET', KEYS[1])
end
if current ~= ARGV[1] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
