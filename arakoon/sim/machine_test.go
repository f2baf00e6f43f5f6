package sim

import (
	"io/fs"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

const (
	memberDir    = "/member"
	segmentBytes = 16 << 10
	retryOpen    = 200 * time.Millisecond
)

// machine is a member with its disk. At most one life of it runs at a time.
type machine struct {
	group   *group
	id      uint64
	joining bool         // its first opening is that of a member that the group has committed
	ahead   atomic.Int64 // nanoseconds, of its clock before that of the others
	slow    atomic.Int64 // nanoseconds that a sync of its log takes
	older   atomic.Bool  // its next life is of an older release

	mu    sync.Mutex
	disk  *crashdisk.FS // survives lives; nil when it was lost with the machine
	now   *life         // nil while the member is down
	made  bool          // it has been opened once
	lives int
}

// life is a member from one opening to its end.
type life struct {
	id     uint64
	number int
	fault  *faultdisk.FS
	gate   gate // shut while the member is paused

	mu    sync.Mutex
	dead  bool // it was cut off, killed or closed: nothing that it does counts any more
	ill   bool // its disk was made to fail
	node  *arakoon.Node
	quota *faultdisk.Quota
}

// still does something of a life, unless that life is over.
func (l *life) still(do func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dead {
		do()
	}
	return !l.dead
}

// running is the node, or nil if it is not open.
func (l *life) running() (n *arakoon.Node) {
	l.still(func() { n = l.node })
	return n
}

// over reports whether the life has ended. What came of a call that was under way then is
// not known to its client.
func (l *life) over() bool { return !l.still(func() {}) }

func (m *machine) current() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// node is the member's node if it runs.
func (m *machine) node() (*arakoon.Node, *life) {
	l := m.current()
	if l == nil {
		return nil, nil
	}
	return l.running(), l
}

// begin makes the next life, nil if one runs or the disk is lost.
func (m *machine) begin() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now != nil || m.disk == nil {
		return nil
	}
	m.lives++
	m.now = &life{id: m.id, number: m.lives, fault: faultdisk.New(m.disk)}
	return m.now
}

func (m *machine) options(l *life) arakoon.Options {
	g := m.group
	m.mu.Lock()
	made := m.made
	m.mu.Unlock()
	o := arakoon.Options{
		FS: slowDisk{l.fault, &m.slow}, Dir: memberDir, Cluster: g.cluster, Member: m.id,
		Existing:     made,
		SegmentBytes: segmentBytes, LogCacheBytes: 8 << 10, CompactBytes: g.plan.compact,
		MemTableBytes: 64 << 10, StateCacheBytes: 1 << 20,
		Now: func() time.Time {
			l.gate.wait()
			return time.Now().Add(time.Duration(m.ahead.Load()))
		},
		OnFailure: func(err error) { m.failed(l, err) },
	}
	if g.plan.mixed {
		o.SegmentBytes, o.CompactBytes = o.SegmentBytes<<(m.id%3), o.CompactBytes<<(2*m.id%5)
	}
	m.release(&o)
	g.join(m, l, &o)
	return o
}

// start opens the member, again and again while its disk is made to fail. Any other
// error is a violation: whatever a power cut leaves is a member that can be opened.
func (m *machine) start() {
	for !m.group.ended() {
		l := m.begin()
		if l == nil {
			return
		}
		m.group.net.plug(m.id, l)
		n, err := arakoon.Open(m.options(l))
		if err == nil {
			m.opened(l, n)
			return
		}
		ill := false
		if !l.still(func() { ill = l.ill }) {
			return // its power was cut meanwhile, and whoever did that starts it again
		}
		if !ill {
			m.group.watch.violation("member %d cannot be opened: %v", m.id, err)
		}
		if !m.end(l, same) || !ill {
			return
		}
		time.Sleep(retryOpen)
	}
}

func (m *machine) opened(l *life, n *arakoon.Node) {
	m.mu.Lock()
	m.made = true
	m.mu.Unlock()
	if !l.still(func() { l.node = n }) {
		_ = n.Close()
	}
}

// What is left of a disk when a life ends.
func same(d *crashdisk.FS) *crashdisk.FS   { return d }
func killed(d *crashdisk.FS) *crashdisk.FS { return d.Kill() }
func lost(*crashdisk.FS) *crashdisk.FS     { return nil }

func cutOff(rng *rand.Rand, o crashdisk.Options) func(*crashdisk.FS) *crashdisk.FS {
	return func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, o) }
}

// end ends a life at this moment; keep says what is left of the disk. Nothing that the
// life does afterwards counts. It reports false if the life had ended before. Whoever
// gets true starts the next one.
func (m *machine) end(l *life, keep func(*crashdisk.FS) *crashdisk.FS) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now != l {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m.now, l.dead = nil, true
	m.disk = keep(m.disk)
	m.group.net.unplug(m.id, l)
	if m.disk != nil && m.made {
		m.group.watch.restarts(m.id, m.group.cluster, m.disk)
	}
	// What is left of the process ends, whatever its disk was made to do.
	node := l.node
	l.wellLocked()
	l.gate.remove()
	m.group.tasks.Go(func() {
		if node != nil {
			_ = node.Close()
		}
	})
	return true
}

// wellLocked ends all that the disk was made to do.
func (l *life) wellLocked() {
	l.fault.Clear()
	if l.quota != nil {
		l.quota.Remove()
		l.quota = nil
	}
}

// closes closes the node as a host does, and says whether the next life may begin.
func (m *machine) closes(l *life) bool {
	if n := l.running(); n != nil {
		_ = n.Close()
	}
	return m.end(l, same)
}

// failed is told that a node has failed. Its host opens it again when the disk is well.
func (m *machine) failed(l *life, err error) {
	ill := false
	if !l.still(func() { ill = l.ill }) {
		return
	}
	m.group.watch.note("member %d has failed: %v", m.id, err)
	if !ill {
		m.group.watch.violation("member %d has failed, and its disk has not: %v", m.id, err)
	}
	m.group.tasks.Go(func() {
		time.Sleep(retryOpen)
		if m.closes(l) {
			m.start()
		}
	})
}

// slowDisk lets syncs of the log take time. Those of the state do not: a goroutine that waits
// for a mutex, as Pebble's then do, keeps synctest's clock from going on.
type slowDisk struct {
	disk.FS
	sync *atomic.Int64
}

// OpenFile opens a file; see disk.FS.
func (d slowDisk) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil || path.Dir(name) != memberDir+"/log" {
		return f, err
	}
	return &slowFile{File: f, sync: d.sync}, nil
}

// slowFile is slow when a sync follows a write. A file that is only prepared is not: the
// appender waits for a mutex meanwhile.
type slowFile struct {
	disk.File
	sync    *atomic.Int64
	written atomic.Bool
}

// WriteAt writes; see disk.File.
func (f *slowFile) WriteAt(p []byte, off int64) (int, error) {
	f.written.Store(true)
	return f.File.WriteAt(p, off)
}

// Datasync syncs; see disk.File.
func (f *slowFile) Datasync() error {
	if d := f.sync.Load(); d > 0 && f.written.Load() {
		time.Sleep(time.Duration(d))
	}
	return f.File.Datasync()
}
