package fleet

import "openvstorage/alba/osd"

// refusal remembers that a disk had no room for a put. That is no fault of the
// disk, and it says more than what the disk says of its room: a put may be larger
// than what is left, and a file system may have limits that nobody tells of.
type refusal struct {
	need uint64 // bytes of the put; 0: none was refused
	room uint64 // that the disk had then, as far as it is known
	seen bool   // room is known
}

// putBytes is how much an Apply brings.
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

// took notes a put that was taken: one as large has room again.
func (r *refusal) took(bytes uint64) {
	if bytes >= r.need {
		*r = refusal{}
	}
}

// look notes what the disk says of its room. One that has got more by as much as
// was refused is believed.
func (r *refusal) look(room uint64) {
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
