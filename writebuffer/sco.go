package writebuffer

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"path"
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
	list    *list.List    // Buffer.mu.evictable or narrow, guarded by Buffer.mu
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
		b.recycle(s.name, s.sparse && s.early)
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

// newSCO opens a file of SCO size that is already in the vDisk's directory.
func (l *Log) newSCO(n sco.Number, name string, sparse bool) (*SCO, error) {
	f, err := l.buf.opt.FS.OpenFile(name, disk.Write, 0)
	if err != nil {
		return nil, err
	}
	if err := pin(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	blocks := int(l.buf.scoSize / sco.ClusterSize)
	room := sco.Room(blocks)
	s := &SCO{Number: n, log: l, file: f, name: name, sparse: sparse}
	s.refs.Store(1)
	s.header = sco.Header{
		Volume: l.opt.Volume, Number: n, Incarnation: l.buf.opt.Random(),
		Capacity: blocks, Epoch: l.opt.Epoch,
	}
	s.blocks = sco.Blocks{Sums: make([]uint32, room), Addrs: make([]uint64, room), Seqs: make([]uint64, room)}
	return s, nil
}

func (l *Log) scoPath(n sco.Number) string { return path.Join(l.dir, n.Name()) }

// table finds SCOs by number without a lock: a slice from the lowest number
// on, replaced whole when an SCO comes or goes.
type table struct {
	base sco.Number
	scos []*SCO
}

func (t *table) find(n sco.Number) *SCO {
	if i := uint64(n - t.base); n >= t.base && i < uint64(len(t.scos)) {
		return t.scos[i]
	}
	return nil
}

// with returns a copy that has s, or without the SCO numbered n if s is nil.
func (t *table) with(n sco.Number, s *SCO) *table {
	low, high := n, n
	for i, o := range t.scos {
		if o == nil || o.Number == n {
			continue
		}
		low, high = min(low, t.base+sco.Number(i)), max(high, t.base+sco.Number(i))
	}
	next := &table{base: low, scos: make([]*SCO, high-low+1)}
	for _, o := range t.scos {
		if o != nil && o.Number != n {
			next.scos[o.Number-low] = o
		}
	}
	next.scos[n-low] = s
	return next
}

// Read fills p, whole clusters, from loc on in one SCO, verified. found is
// false if the SCO is not in the buffer. With wait false it returns
// disk.ErrWouldBlock if the medium would have to be waited for.
func (l *Log) Read(loc sco.Location, p []byte, wait bool) (found bool, err error) {
	s := l.table.Load().find(loc.Number())
	if s == nil || !s.acquire() {
		return false, nil
	}
	err = s.read(p, loc.Index(), wait)
	s.release()
	return true, err
}

// Has reports whether the SCO is in the buffer.
func (l *Log) Has(n sco.Number) bool { return l.table.Load().find(n) != nil }

// drop takes s out of the table; its file is recycled with its last reader.
func (l *Log) drop(s *SCO) {
	l.mu.Lock()
	l.table.Store(l.table.Load().with(s.Number, nil))
	l.mu.Unlock()
	s.release()
}
