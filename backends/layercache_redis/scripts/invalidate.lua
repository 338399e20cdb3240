-- Give KEYS[1] a new stamp and say so in the log and, for a tag that entries may be given late, in KEYS[3].
-- ARGV 8: the name that the log has for it   9: its bucket   10: '1' to count a soft invalidation more, where there is a
-- stamp and its count is not full
-- Returns the new stamp.
local stamp, life, kind = ARGV[3], STAMP_LIFE, 't'
local former = ARGV[10] == '1' and redis.pcall('GET', stamp_key)
if type(former) == 'string' and #former == 8 then
  local count = struct.unpack('>I2', former, 7)
  if count < 65535 then
    stamp, kind = string.sub(former, 1, 6) .. struct.pack('>I2', count + 1), 'o'
    life = redis.call('PTTL', stamp_key) -- what carries it lives as long as it does
    life = life < 0 and '0' or math.max(life, 1)
  end
end
redis.call('DEL', stamp_key) -- a server that is out of memory lets a script go on once it has given some back
put(stamp_key, stamp, life)
if KEYS[3] then mark(KEYS[3], ARGV[9]) end
if log_key then tell(kind, ARGV[8], 's', stamp) end
return stamp
