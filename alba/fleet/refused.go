package fleet

import "openvstorage/alba/osd"

// refusal remembers that a disk had no room for a put. That is no fault of the disk. It
// says more than the room that the disk reports: a put may be larger than what is left,
// and a file system may have limits that it does not report.
type refusal struct {
	need uint64 // bytes of the put; 0: none was refused
	room uint64 // that the disk had then, as far as it is known
	seen bool   // room is known
}

// putBytes is how many bytes of values an Apply writes.
func putBytes(updates []osd.Update) (n uint64) {
	for i := range updates {
		if !updates[i].Delete {
			n += uint64(len(updates[i].Value.Data))
		}
	}
	return n
}

// refuse notes a put that was refused.
func (r *refusal) refuse(need uint64) {
	if r.need == 0 || need < r.need {
		*r = refusal{need: max(need, 1)}
	}
}

// took notes a put that was taken. If it was as large as the refused one, there is room
// again.
func (r *refusal) took(bytes uint64) {
	if bytes >= r.need {
		*r = refusal{}
	}
}

// reported notes the room that the disk reports. The refusal ends when the room has grown by as
// much as was refused.
func (r *refusal) reported(room uint64) {
	switch {
	case r.need == 0:
	case !r.seen:
		r.room, r.seen = room, true
	case room >= r.room+r.need:
		*r = refusal{}
	default:
		r.room = min(r.room, room)
	}
}
