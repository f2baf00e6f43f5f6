package writebuffer

import (
	"errors"
	"fmt"
	"sync"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// syncs makes the syncs of one file, and remembers their results (P6). Linux reports
// an error of writing back once for each open file: of two syncs at the same time one
// gets the error, and the other succeeds. So one sync of a file runs at a time, and its
// result holds for all that wait and all that come later.
//
// A sync that failed for good fails the log. A sync that failed for a reason that may
// pass (see passing) has lost the data that was not durable, too: a second sync would
// succeed without it. So that data is verified and written again before the next sync,
// and only the success of that one counts.
type syncs struct {
	sync.Mutex
	whole bool  // the file is complete, and durable
	lost  bool  // data that is not durable must be written again before a sync counts
	err   error // why it never will be durable
	bad   bool  // the last error is for good
}

// syncTries is how often a sync that fails for a reason that may pass is made before
// its caller gets the error. The next call tries again.
const syncTries = 3

// rewriter writes the part of a file that is not durable again: verified, and to the
// same place.
type rewriter interface{ writeAgain() error }

// run returns nil when all that was written to the file before is durable.
func (y *syncs) run(t *fate, f disk.File, w rewriter) error {
	if y.err != nil {
		return y.err
	}
	if err := t.err(); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := y.once(f, w)
		if err == nil {
			return nil
		}
		if y.bad {
			y.err = err
			t.fail(err)
			return err
		}
		if try == syncTries || !passing(err) {
			return err
		}
	}
}

// once writes again what a failed sync has lost, and syncs. If it cannot write or read,
// nothing more is lost: the next call begins with the same. Bytes that do not match
// their sum are bad for good, and so is a sync that failed for a reason that does not
// pass.
func (y *syncs) once(f disk.File, w rewriter) error {
	if y.lost {
		if err := w.writeAgain(); err != nil {
			y.bad = errors.Is(err, sco.ErrCorrupt)
			return fmt.Errorf("sync %s: %w", f.Name(), err)
		}
	}
	err := f.Datasync()
	if y.lost = err != nil; !y.lost {
		return nil
	}
	y.bad = !passing(err)
	return fmt.Errorf("sync %s: %w", f.Name(), err)
}

// Sync returns when a sealed SCO is durable.
func (s *SCO) Sync() error { return s.sync(true) }

// sync makes durable what is written of the SCO. sealed says that nothing will be
// added: then one success is for good.
func (s *SCO) sync(sealed bool) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.syncing.whole {
		return nil
	}
	used := int(s.used.Load())
	if err := s.syncing.run(&s.log.fate, s.file, s); err != nil {
		return err
	}
	s.durable = used
	if sealed {
		s.syncing.whole = true
		s.synced.Store(true)
		settle(s.file)
	}
	return nil
}

// rewriteBlocks is how many blocks are written again at a time.
const rewriteBlocks = 64

// writeAgain writes the blocks that are not durable once more, and the footer. The
// bytes are the same, in the same place, so that nobody sees it; those of which
// the sum is known are verified (P2).
func (s *SCO) writeAgain() error {
	// A write under way is in the file before it is in used: it may be lost as well.
	a := s.log.section.enter()
	used := int(s.used.Load())
	a.leave()
	first := s.durable + 1
	if first == 1 {
		first = 0 // the header goes with the first block
	}
	buf := make([]byte, min(rewriteBlocks, used+1-min(first, used))*sco.ClusterSize)
	for at := first; used > 0 && at <= used; {
		n := min(rewriteBlocks, used+1-at)
		b, off := buf[:n*sco.ClusterSize], int64(at)*sco.ClusterSize
		if _, err := s.file.ReadAt(b, off); err != nil {
			return err
		}
		for i := range n {
			if err := s.verify(b[i*sco.ClusterSize:(i+1)*sco.ClusterSize], at+i); err != nil {
				return err
			}
		}
		if _, err := s.file.WriteAt(b, off); err != nil {
			return err
		}
		at += n
	}
	if !s.footed.Load() {
		return nil
	}
	off, footer := s.footer(nil)
	_, err := s.file.WriteAt(footer, off)
	return err
}

// verify compares a block that was read with the sum that was made when it was written.
func (s *SCO) verify(b []byte, index int) error {
	if index == 0 {
		if !s.SameFile(b) {
			return &CorruptError{s.name, 0, "the header is not the one written"}
		}
		return nil
	}
	want := s.blocks.Sums[index-1]
	if want == 0 && s.blocks.Addrs[index-1] == sco.NoAddress {
		return nil // of an earlier process: its entries are in a TLog of this one
	}
	if got := sco.Sum(b); got != want {
		return &CorruptError{s.name, int64(index) * sco.ClusterSize, fmt.Sprintf("CRC is %08x, not %08x", got, want)}
	}
	return nil
}

// sync makes a TLog to which nothing is appended any more durable (O10).
func (t *TLog) sync(f *fate) error {
	t.syncing.Lock()
	defer t.syncing.Unlock()
	if t.syncing.whole {
		return nil
	}
	err := t.syncing.run(f, t.file, t)
	t.syncing.whole = err == nil
	return err
}

// writeAgain writes the TLog once more, verified.
func (t *TLog) writeAgain() error {
	b, err := t.read()
	if err != nil {
		return err
	}
	_, err = t.file.WriteAt(b, 0)
	return err
}

// read returns the bytes of the TLog, every entry verified.
func (t *TLog) read() ([]byte, error) {
	b := make([]byte, t.Size)
	if err := readFull(t.file, b, 0); err != nil {
		return nil, err
	}
	last := uint64(0)
	_, end, _, err := tlog.Scan(b, func(_ int64, e tlog.Entry) error {
		if e.Kind.Ordered() {
			last = e.Seq
		}
		return nil
	})
	if err != nil || last != t.LastSeq || end != t.Size {
		return nil, &CorruptError{t.name, end, fmt.Sprintf("entries end at seq %d, not %d: %v", last, t.LastSeq, err)}
	}
	return b, nil
}
