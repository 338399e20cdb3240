-- Give a lease back, if the caller has it. ARGV 8: token   9: milliseconds for which nobody is to have it, or '0': then it
-- is that of no token.
local holder = read(KEYS[2])
if not holder or string.sub(holder, 1, -9) ~= ARGV[8] then return 0 end
if ARGV[9] == '0' then return redis.call('DEL', KEYS[2]) end
redis.call('SET', KEYS[2], string.sub(holder, -8), 'PX', ARGV[9])
return 1
