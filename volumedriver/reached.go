package volumedriver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"openvstorage/internal/format"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// Point is a place in a vDisk's order: a seq, and the epoch in which it was
// reached.
type Point struct{ Epoch, Seq uint64 }

// ReachedWitness is the name under which whoever remembers it for a Host keeps Reached.
const ReachedWitness = "reached"

// Reached is how far the flushes of each vDisk have come: up to there everything is
// durable. It is remembered outside of the write buffer from time to time
// (Options.Reached), so that local files which were put back from an older copy are not
// taken for everything that was flushed (O2, P8). Its bytes are, for each vDisk in order of
// id, 16 of the id, 8 of the epoch and 8 of the seq, little-endian. An id of zeros, which
// no vDisk has, begins the form of a later release.
type Reached map[uuid.UUID]Point

const reachedSize = 32

// Append appends the bytes to dst.
func (r Reached) Append(dst []byte) []byte {
	for _, id := range slices.SortedFunc(maps.Keys(r), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }) {
		dst = append(dst, id[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, r[id].Epoch)
		dst = binary.LittleEndian.AppendUint64(dst, r[id].Seq)
	}
	return dst
}

// DecodeReached reads what Append made. As it is always rewritten whole, a form that this
// release does not know is refused (format.ErrNewer).
func DecodeReached(b []byte) (Reached, error) {
	if len(b) >= 16 && uuid.UUID(b[:16]) == uuid.Nil {
		return nil, fmt.Errorf("how far vDisks were flushed: %w: a form that this release does not know", format.ErrNewer)
	}
	r := make(Reached, len(b)/reachedSize)
	for ; len(b) >= reachedSize; b = b[reachedSize:] {
		r[uuid.UUID(b[:16])] = Point{binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])}
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("how far vDisks were flushed: %w: %d bytes behind the last", format.ErrNewer, len(b))
	}
	return r, nil
}

// Reached is how far the flushes of all vDisks have come. Of one that is not open
// it is what was known before.
func (h *Host) Reached() Reached {
	list := h.table.appendTo(nil)
	r := make(Reached, len(list))
	for _, v := range list {
		if v.opening.opened.Load() {
			r[v.id] = Point{v.epoch, v.buf.Durable()}
		} else if known, ok := h.opt.Reached[v.id]; ok {
			r[v.id] = known
		}
	}
	return r
}

// checkReached refuses local files that do not reach as far as is known from outside, unless
// a person has accepted the loss. If a later epoch began below what is known, a person
// accepted it then, and what was behind is given up.
func (o *opening) checkReached(reached uint64, accepted bool) error {
	v := o.v
	known := v.host.opt.Reached[v.id]
	seq := known.Seq
	for _, e := range v.cat.current().Epochs {
		if e.Epoch > known.Epoch {
			seq = min(seq, e.Base)
		}
	}
	if reached >= seq || accepted {
		return nil
	}
	return fmt.Errorf("%s is an older copy: it reaches seq %d, and all up to %d had been flushed; put the newest one back, or go on without: make an empty file %s in it", v.host.buffer.Dir(v.id), reached, seq, writebuffer.AcceptLoss)
}
