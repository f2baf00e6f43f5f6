package writebuffer

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
)

// SCO is an SCO file of the buffer. Its blocks 1..used are immutable once
// used says that they are there.
type SCO struct {
	Number sco.Number

	log  *Log
	file disk.File
	name string

	// refs counts readers, plus one while the SCO is in its log's table. At
	// zero the file is recycled: never under a reader (O11).
	refs atomic.Int32
	left atomic.Bool // the file stays when its last user has closed it

	// Written in the append section; read by others only up to used.
	header  sco.Header
	blocks  sco.Blocks
	used    atomic.Int32 // blocks 1..used are written
	last    int          // the last of them that is data
	data    int          // how many are data
	lastSeq uint64       // highest seq of an entry with data here
	covers  uint64       // highest seq that a commit block in it covers
	broken  bool         // a write failed: nothing more is appended (P6)
	sealed  bool
	// sealedAt is when: it is synced in the background some time later.
	sealedAt time.Time
	sparse   bool // not pre-written: its syncs are slow
	early    bool // sealed before it was full

	syncing syncs
	durable int         // blocks 1..durable are; guarded by syncing
	synced  atomic.Bool // it is sealed, and durable as a whole
	footed  atomic.Bool // it has a footer

	stored  bool          // guarded by log.mu
	list    *list.List    // of evictable, which guards it
	element *list.Element // in it
}

// Size is how many bytes of data and commit blocks the SCO has.
func (s *SCO) Size() int64 { return int64(s.last) * sco.ClusterSize }

// Data is how many bytes of data the sealed SCO has.
func (s *SCO) Data() int64 { return int64(s.data) * sco.ClusterSize }

// SealedAt is when this process sealed the SCO, the zero time if an earlier one did.
func (s *SCO) SealedAt() time.Time { return s.sealedAt }

func (s *SCO) acquire() bool {
	for {
		n := s.refs.Load()
		if n <= 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *SCO) release() {
	if s.refs.Add(-1) == 0 {
		b := s.log.buf
		if err := s.file.Close(); err != nil {
			b.opt.Logger.Warn("write buffer: SCO not closed", "file", s.name, "err", err)
		}
		if s.left.Load() {
			return
		}
		b.pool.recycle(s.name, s.sparse && s.early)
	}
}

// CorruptError says which cluster of which file does not match the checksum
// that was made when it was written.
type CorruptError struct {
	File   string
	Offset int64
	Detail string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: damaged at offset %d: %s", e.File, e.Offset, e.Detail)
}

// Is makes errors.Is(err, sco.ErrCorrupt) hold.
func (e *CorruptError) Is(target error) bool { return target == sco.ErrCorrupt }

// read fills p with the clusters from index on and verifies them (P2).
func (s *SCO) read(p []byte, index int, wait bool) error {
	n := len(p) / sco.ClusterSize
	if index < 1 || index+n-1 > int(s.used.Load()) {
		return &CorruptError{s.name, int64(index) * sco.ClusterSize, "the map names a block that was never written"}
	}
	off := int64(index) * sco.ClusterSize
	var err error
	if wait {
		_, err = s.file.ReadAt(p, off)
	} else {
		_, err = s.file.TryReadAt(p, off)
	}
	if err != nil {
		if err == disk.ErrWouldBlock {
			return err
		}
		if errors.Is(err, io.EOF) {
			return &CorruptError{s.name, off, "the file is too short"}
		}
		return fmt.Errorf("read %s at %d: %w", s.name, off, err)
	}
	for i := range n {
		c := p[i*sco.ClusterSize : (i+1)*sco.ClusterSize]
		if got, want := sco.Sum(c), s.blocks.Sums[index-1+i]; got != want {
			return &CorruptError{s.name, off + int64(i)*sco.ClusterSize, fmt.Sprintf("CRC is %08x, not %08x", got, want)}
		}
	}
	return nil
}

// footer appends the SCO's footer, and tells where it is written.
func (s *SCO) footer(dst []byte) (off int64, footer []byte) {
	n := int(s.used.Load())
	first := s.header.Capacity - sco.FooterBlocks(n)
	return int64(first) * sco.ClusterSize, sco.AppendFooter(dst, s.header, s.blocks, n, first)
}
