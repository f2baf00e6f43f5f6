package writebuffer

import (
	"fmt"

	"openvstorage/internal/disk"
	"openvstorage/tlog"
)

// tlogSizeMax is when a TLog closes whatever it covers, in bytes: a TLog is
// read and uploaded as a whole.
const tlogSizeMax = 16 << 20

// tlogFirst is how many bytes are allocated for a new TLog. Bytes beyond them may lack
// room on a full disk.
const tlogFirst = 16 << 10

// openTLog is the TLog that entries go to.
type openTLog struct {
	TLog
	seed   tlog.Seed
	bytes  int64 // of SCO blocks that its entries cover
	broken bool  // a write failed: nothing more is appended
}

// TLog is a closed TLog, waiting to be stored or to be covered by a
// checkpoint.
type TLog struct {
	ID       tlog.ID
	FirstSeq uint64 // 0 if it has no entry
	LastSeq  uint64
	Size     int64

	file disk.File
	name string
	scos []*SCO // that its entries name, sealed

	stored  bool // guarded by the append section
	syncing syncs
}

// close lets go of the file. One that is stored has none.
func (t *TLog) close() error {
	if t.file == nil {
		return nil
	}
	f := t.file
	t.file = nil
	return f.Close()
}

// begin writes the header.
func (t *openTLog) begin(h tlog.Header) error {
	t.seed = tlog.SeedOf(h.Incarnation)
	return t.append(tlog.AppendHeader(nil, h))
}

// append writes whole entries. After an error nothing more is appended: a torn entry
// may follow the last good one, and a reader stops there.
func (t *openTLog) append(b []byte) error {
	if t.broken {
		return fmt.Errorf("%s: closed after a failed write", t.name)
	}
	if _, err := t.file.WriteAt(b, t.Size); err != nil {
		// Entries of the refused request must not be found by a restart.
		t.broken = true
		_ = t.file.Truncate(t.Size)
		return fmt.Errorf("append to %s at %d: %w", t.name, t.Size, err)
	}
	t.Size += int64(len(b))
	return nil
}

func (t *openTLog) note(first, last uint64) {
	if t.FirstSeq == 0 {
		t.FirstSeq = first
	}
	t.LastSeq = last
}

// CloseTLog seals the open SCO and closes the open TLog, so that everything
// written so far can be stored. It reports whether there was anything.
func (l *Log) CloseTLog() bool {
	a := l.section.enter()
	defer a.leave()
	return a.closeTLog()
}

// CloseTLogOf is CloseTLog if the open TLog has an entry up to seq. If all its entries
// are later, it stays open: they need not be stored for seq.
func (l *Log) CloseTLogOf(seq uint64) bool {
	a := l.section.enter()
	defer a.leave()
	return a.tl != nil && a.tl.FirstSeq <= seq && a.closeTLog()
}
