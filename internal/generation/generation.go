// Package generation tells an older copy of something that is stored from the
// newest one. It does no I/O.
//
// A data directory counts its generations: every start claims the next one, and
// so does a running process from time to time while it changes things. Whatever
// the directory belongs together with, its replicated groups and its disks,
// remembers the newest generation that it has seen. So whichever of them was put
// back from a copy gives itself away: it remembers less than the others.
//
// Two copies of a directory that go on apart claim the same numbers. Each start
// therefore draws a random number too, and a Mark holds both. History lists the
// starts of one directory, and Judge tells a mark of another line by it.
package generation

import (
	"encoding/binary"
	"fmt"
	"sort"

	"openvstorage/internal/format"
)

// Mark is a generation: its number, and what the start drew that claimed it. The
// zero Mark is that of what has seen none.
type Mark struct {
	Number uint64
	Start  uint64
}

// Size is the length of an encoded Mark in bytes.
const Size = 16

// Append appends the mark's bytes to dst: number u64, start u64, little-endian.
func (m Mark) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, m.Number)
	return binary.LittleEndian.AppendUint64(dst, m.Start)
}

// Decode reads the bytes that Append made. Any Size bytes are a mark; more are that
// of a later release (format.ErrNewer).
func Decode(b []byte) (Mark, error) {
	if len(b) > Size {
		return Mark{}, fmt.Errorf("generation: %w: a mark of %d bytes, this release knows %d", format.ErrNewer, len(b), Size)
	}
	if len(b) != Size {
		return Mark{}, fmt.Errorf("generation: a mark of %d bytes, not %d", len(b), Size)
	}
	return Mark{Number: binary.LittleEndian.Uint64(b), Start: binary.LittleEndian.Uint64(b[8:])}, nil
}

// String implements fmt.Stringer.
func (m Mark) String() string { return fmt.Sprintf("generation %d", m.Number) }

// Verdict is what Judge says of a mark.
type Verdict int

// Verdicts.
const (
	Ours    Verdict = iota // of this line, and not newer than it
	Newer                  // newer than the newest of this line: this line is an older copy
	Foreign                // claimed by a copy that went on apart from this line
)

// HistoryMax is how many starts a History keeps. A mark that is older than all
// of them cannot be told from a foreign one, and counts as ours.
const HistoryMax = 180

// History is the first marks of the newest starts of a directory, ascending.
type History []Mark

// Add returns the history with one more start.
func (h History) Add(m Mark) History {
	if len(h) >= HistoryMax {
		h = h[len(h)-HistoryMax+1:]
	}
	return append(h[:len(h):len(h)], m)
}

// Judge compares a mark with a line whose newest generation is newest. What has
// seen no generation is ours.
func (h History) Judge(newest uint64, m Mark) Verdict {
	switch {
	case m.Number == 0:
		return Ours
	case m.Number > newest:
		return Newer
	}
	// The start that claimed it is the last that began at or below it.
	i := sort.Search(len(h), func(i int) bool { return h[i].Number > m.Number })
	if i > 0 && h[i-1].Start != m.Start {
		return Foreign
	}
	return Ours
}
