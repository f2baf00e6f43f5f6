package transport

import "fmt"

// MemoryDefault is the memory for requests, in bytes, if Options.Memory is 0. Rings get
// more on a machine that has so many CPUs that they need it.
const MemoryDefault = 128 << 20

// requestsMin is how many of the longest requests there must be room for, on each CPU
// where rings bring them: with less room they would wait for each other.
const requestsMin = 8

// MemoryMin is the least Options.Memory in bytes.
func MemoryMin(maxWrite int) int64 { return requestsMin * int64(maxWrite) }

func (o Options) checkMemory() error {
	if least := MemoryMin(o.MaxWrite); o.Memory != 0 && o.Memory < least {
		return fmt.Errorf("FUSE with %d bytes for requests: it needs at least %d", o.Memory, least)
	}
	return nil
}

// entriesMax bounds the entries of a ring.
const entriesMax = 64

// depth is how many entries the ring of each online CPU has, so that all entries, of
// room bytes each, have room in memory bytes. The ring of an offline CPU, which may
// come, has a single entry: nobody asks there. Room is set aside for all entries, but
// memory is used only as far as requests have touched it.
func depth(memory int64, room, online, offline int) (int, error) {
	least := int64(requestsMin*online+offline) * int64(room)
	if memory == 0 {
		memory = max(MemoryDefault, least)
	}
	if memory < least {
		return 0, fmt.Errorf("rings of %d CPUs, and %d that may come, need %d bytes for requests, and may have %d: allow more, or take the device", online, offline, least, memory)
	}
	return int(min(entriesMax, (memory/int64(room)-int64(offline))/int64(online))), nil
}
