-- What stands before every script.
-- KEYS   n pairs of a value and its lease; then, but for a cluster, the cache's stamp and the log
-- ARGV   1: n   2: the stamp that the caller takes for current   3: a new one, where it is lost
--        4: its life in milliseconds, 0 for ever   5: length of the log   6: who writes
--        7: bytes of the prefix that the log leaves out   8 and on: the script's own
local n = tonumber(ARGV[1])
local stamp_key, log_key = KEYS[2 * n + 1], KEYS[2 * n + 2]
local LOG_LIFE = 86400000

-- GET, where something of another type is nothing.
local function read(key)
  local found = redis.pcall('GET', key)
  return type(found) == 'string' and found or nil
end

local function put(key, frame, px)
  if px == '0' then redis.call('SET', key, frame) else redis.call('SET', key, frame, 'PX', px) end
end

-- The cache's stamp. One that is lost is made anew and not as it was: it may have changed before it was lost.
local function current_stamp()
  if not stamp_key then return ARGV[2] end
  local current, life = read(stamp_key), tonumber(ARGV[4])
  if not current or #current ~= 8 then
    put(stamp_key, ARGV[3], ARGV[4])
    return ARGV[3]
  end
  local left = redis.call('PTTL', stamp_key)
  if left >= 0 and life == 0 then
    redis.call('PERSIST', stamp_key)
  elseif left >= 0 and left < life * 0.75 then
    redis.call('PEXPIRE', stamp_key, life)
  end
  return current
end

-- Whether a frame of ours is valid as far as the cache's stamp goes; checks and tags are the caller's to see.
local function is_valid(frame, stamp)
  return frame and #frame >= 56 and string.sub(frame, 1, 4) == '\171LC\1' and string.sub(frame, 41, 48) == stamp
end

-- Ends a write of all n keys: their leases are void and the log says so.
local function written()
  local leases, fields = {}, {'n', ARGV[6]}
  for i = 1, n do
    leases[i] = KEYS[2 * i]
    fields[2 * i + 1] = 'k'
    fields[2 * i + 2] = string.sub(KEYS[2 * i - 1], tonumber(ARGV[7]) + 1)
  end
  redis.call('DEL', unpack(leases))
  if log_key then
    local added = redis.pcall('XADD', log_key, 'MAXLEN', '~', ARGV[5], '*', unpack(fields))
    if type(added) == 'table' and added.err then
      redis.call('DEL', log_key)
      redis.call('XADD', log_key, 'MAXLEN', '~', ARGV[5], '*', unpack(fields))
    end
    if redis.call('XLEN', log_key) == 1 then redis.call('PEXPIRE', log_key, LOG_LIFE) end
  end
end

-- What is under the key is of no use to anybody: away with it. A frame of another version is somebody's.
local function drop_unless_newer(frame)
  if not frame or string.sub(frame, 1, 3) ~= '\171LC' or string.sub(frame, 4, 4) == '\1' then
    if redis.call('UNLINK', KEYS[1]) == 1 then written() end
  end
end
