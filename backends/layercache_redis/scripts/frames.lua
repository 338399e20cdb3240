-- What stands before the scripts that look at frames, after the prelude.

-- GET, where something of another type is nothing.
local function read(key)
  local found = redis.pcall('GET', key)
  return type(found) == 'string' and found or nil
end

-- Whether a frame of ours is valid as far as the cache's stamp goes; checks and tags are the caller's to see.
local function is_valid(frame, stamp)
  return frame and #frame >= 40 and string.sub(frame, 1, 4) == '\171LC\1' and string.sub(frame, 28, 35) == stamp
end

-- What is under the key is of no use to anybody: away with it. A frame of another version is somebody's.
local function drop_unless_newer(frame)
  if not frame or string.sub(frame, 1, 3) ~= '\171LC' or string.sub(frame, 4, 4) == '\1' then
    if redis.call('UNLINK', KEYS[1]) == 1 then written() end
  end
end
