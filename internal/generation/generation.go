// Package generation tells an older copy of stored data from the newest one. It does no
// I/O.
//
// A data directory counts its generations. Every start claims the next one, and so does
// a running process from time to time while it changes things. The replicated groups
// and the disks that belong to the directory remember the newest generation that they
// have seen. So if one of them is put back from an older copy, it gives itself away: it
// remembers less than the others.
//
// Two copies of a directory that are used apart claim the same numbers. Each start
// therefore draws a random number too, and a Mark holds both. History lists the starts
// of one directory. With it Judge recognises the marks of the other copy.
package generation

import (
	"encoding/binary"
	"fmt"
	"sort"

	"openvstorage/internal/format"
)

// Mark is a generation: its number, and the random number of the start that claimed it.
// The zero Mark stands for no generation.
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

// Decode reads the bytes that Append made. Any Size bytes are a mark; longer input is a
// mark of a later release (format.ErrNewer).
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

// HistoryMax is how many starts a History keeps. A mark that is older than all of them
// cannot be told from a mark of another copy, and counts as ours.
const HistoryMax = 180

// History holds the first mark of each of the newest starts of a directory, ascending.
type History []Mark

// Add returns the history with one more start.
func (h History) Add(m Mark) History {
	if len(h) >= HistoryMax {
		h = h[len(h)-HistoryMax+1:]
	}
	return append(h[:len(h):len(h)], m)
}

// Judge compares a mark with the directory's history, whose newest generation is
// newest. The zero mark is ours.
func (h History) Judge(newest uint64, m Mark) Verdict {
	switch {
	case m.Number == 0:
		return Ours
	case m.Number > newest:
		return Newer
	}
	// The mark was claimed by the last start that began at or below its number.
	i := sort.Search(len(h), func(i int) bool { return h[i].Number > m.Number })
	if i > 0 && h[i-1].Start != m.Start {
		return Foreign
	}
	return Ours
}
