-- Give KEYS[1] a new stamp and say so in the log and, for a tag that entries may be given late, in KEYS[3].
-- ARGV 8: the name that the log has for it   9: its bucket
redis.call('DEL', stamp_key) -- a server that is out of memory lets a script go on once it has given some back
put(stamp_key, ARGV[3], STAMP_LIFE)
if KEYS[3] then mark(KEYS[3], ARGV[9]) end
if log_key then tell('t', ARGV[8], 's', ARGV[3]) end
return 1
