package volumedriver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Stat is what a file system shows of a vDisk. Making one costs the same for a vDisk of
// any size, and waits for no management operation, upload or other I/O.
type Stat struct {
	Name    string
	ID      uuid.UUID
	Size    uint64 // bytes
	State   string
	Created time.Time
	Change  Change
	// Allocated is how many bytes of the newest state hold data: never too few, and
	// Size while it is not known. What a clone has of its ancestors is counted once, in
	// units of 2 MiB that hold any data; so are snapshots that an earlier process took.
	Allocated uint64
	Snapshots []SnapshotStat // oldest first
}

// SnapshotStat is what a file system shows of a snapshot.
type SnapshotStat struct {
	Name      string
	Size      uint64
	Created   time.Time
	Allocated uint64 // as Stat's
}

// Change says when a vDisk was last changed by writes, trims, zeroes, growth or
// rollback; snapshots change nothing. Seqs are those of its order (O9).
type Change struct {
	Epoch uint64    // of this opening; 0: the vDisk is not open, and nothing is known
	Base  uint64    // seq that it had reached when it was opened
	Seen  uint64    // seq up to which changes were looked for
	Last  uint64    // seq at which one was found last; Base: none since the opening
	At    time.Time // when that was; of the opening if there was none since
}

// lookEvery is how often the host looks for changes of vDisks. A time of change is too
// late by lookEvery at most, and never too early.
const lookEvery = 500 * time.Millisecond

// changes tells when a vDisk was changed last. Whatever changes the vDisk pays nothing
// for it: seqs count the changes already.
type changes struct {
	sync.Mutex // for a moment
	Change
}

// begin begins with what was recovered.
func (c *changes) begin(epoch, reached uint64) {
	c.Lock()
	defer c.Unlock()
	c.Change = Change{Epoch: epoch, Base: reached, Seen: reached, Last: reached, At: time.Now()}
}

// noteWritten notes that all up to seq is written.
func (c *changes) noteWritten(seq uint64) Change {
	c.Lock()
	defer c.Unlock()
	if c.Epoch > 0 && seq > c.Seen {
		c.Seen, c.Last, c.At = seq, seq, time.Now()
	}
	return c.Change
}

// pass notes that the entry with the seq changes nothing.
func (c *changes) pass(seq uint64) {
	c.noteWritten(seq - 1)
	c.Lock()
	defer c.Unlock()
	if c.Epoch > 0 {
		c.Seen = max(c.Seen, seq)
	}
}

// changed returns when the vDisk was changed last, counting every change that was
// acknowledged before the call.
func (v *Volume) changed() Change {
	seq := uint64(0)
	if v.buf != nil {
		seq = v.buf.Written()
	}
	return v.changes.noteWritten(seq)
}

// lookForChanges looks at all vDisks every lookEvery until the host is closed.
func (h *Host) lookForChanges() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var list []*Volume
	for {
		select {
		case <-tick.C:
		case <-h.background.living().Done():
			return
		}
		list = h.table.appendTo(list[:0])
		for _, v := range list {
			v.changed()
		}
		clear(list)
	}
}

// Stat returns what a file system shows of the vDisk with the name.
func (h *Host) Stat(_ context.Context, name string) (Stat, error) {
	v, err := h.table.named(name)
	if err != nil {
		return Stat{}, err
	}
	return v.stat(), nil
}

// StatID is Stat of the vDisk with the id, whatever its name is.
func (h *Host) StatID(_ context.Context, id uuid.UUID) (Stat, error) {
	if v := h.table.byID(id); v != nil {
		return v.stat(), nil
	}
	return Stat{}, fmt.Errorf("vDisk %s: %w", id, ErrNotFound)
}

// Stats returns all vDisks in order of name.
func (h *Host) Stats(context.Context) []Stat {
	list := h.table.all()
	stats := make([]Stat, len(list))
	for i, v := range list {
		stats[i] = v.stat()
	}
	return stats
}

// Listed returns a number that changes whenever a vDisk or a snapshot comes, goes or gets
// another name. The number changes before the call returns that made the change.
func (h *Host) Listed() uint64 { return h.table.version() }

func (v *Volume) stat() Stat {
	s := Stat{ID: v.id, Size: v.size.Load(), State: StateRunning, Change: v.changed()}
	if h := v.halted.Load(); h != nil {
		s.State = h.state()
	}
	if u := v.unsure.Load(); u != nil {
		s.State = u.state
	}
	c := v.cat.current()
	s.Created = c.Created
	if s.Size == 0 {
		s.Size = c.Size
	}
	s.Allocated = v.bounds.allocated(s.Size)
	s.Name = v.Name()
	s.Snapshots = v.tree.stats()
	return s
}
