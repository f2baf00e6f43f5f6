package fragmentcache

import (
	"errors"
	"path"
	"sync"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

func TestHitNeedsAllBlocks(t *testing.T) {
	c := open(t, options(crashdisk.New()))
	k := key(1, 0)
	put(c, k, 8192, 4096)
	put(c, k, 16384, 8192)
	c.Flush()
	want(t, c, true, k, 8192, 4096)
	want(t, c, true, k, 20480, 4096)
	want(t, c, false, k, 8192, 8192)
	want(t, c, false, k, 0, 4096)
	want(t, c, false, key(1, 1), 8192, 4096)
	want(t, c, false, key(2, 0), 8192, 4096)
	put(c, k, 0, 96<<10) // around them, over three pages
	c.Flush()
	want(t, c, true, k, 0, 96<<10)
	want(t, c, false, k, 0, 100<<10)
	if s := c.Stats(); s.Written != 96<<10 {
		t.Errorf("%d bytes written: what was there was written again", s.Written)
	}
	other := k
	other.Namespace, other.Version = 1, 1
	want(t, c, true, other, 4096, 65536)
}

func TestRequestsOutOfBounds(t *testing.T) {
	c := open(t, options(crashdisk.New()))
	k := key(1, 0)
	p, crcs := content(k, 0, 8192)
	c.Put(k, 1, p, crcs)
	c.Put(k, 0, p[:4097], crcs)
	c.Put(k, 0, p, crcs[:1])
	c.Put(k, 1<<32-4096, p, crcs)
	c.Put(k, 0, nil, nil)
	c.Flush()
	if c.Get(k, 1, p, crcs) || c.Get(k, 0, p, crcs[:1]) || c.Get(k, 1<<32-4096, p, crcs) || c.Get(k, 0, nil, nil) {
		t.Error("hit")
	}
	c.Put(k, 1<<32-4096, p[:4096], crcs[:1]) // the last block that can be named
	c.Flush()
	if !c.Get(k, 1<<32-4096, p[:4096], crcs[:1]) {
		t.Error("miss")
	}
	c.Bad(k, 1<<32-4096)
	if c.Get(k, 1<<32-4096, p[:4096], crcs[:1]) {
		t.Error("hit after Bad")
	}
}

func TestBad(t *testing.T) {
	c := open(t, options(crashdisk.New()))
	put(c, key(1, 0), 0, 128<<10)
	put(c, key(1, 1), 0, 128<<10)
	c.Flush()
	c.Bad(key(1, 0), 36<<10)
	want(t, c, true, key(1, 0), 0, 32<<10)
	want(t, c, false, key(1, 0), 32<<10, 4096)
	want(t, c, false, key(1, 0), 124<<10, 4096)
	want(t, c, true, key(1, 1), 0, 128<<10)
	put(c, key(1, 0), 0, 128<<10)
	c.Flush()
	want(t, c, true, key(1, 0), 0, 128<<10)
}

func TestAdmission(t *testing.T) {
	o := options(crashdisk.New())
	o.AdmitFirst = false
	c := open(t, o)
	k := key(1, 0)
	put(c, k, 0, 4096)
	put(c, k, 4096, 4096) // the same page, other blocks
	c.Flush()
	want(t, c, false, k, 0, 4096)
	put(c, k, 0, 4096)
	c.Flush()
	want(t, c, true, k, 0, 4096)
	want(t, c, false, k, 4096, 4096)
	for i := range 10000 { // a scan
		put(c, key(2+i, 0), 0, 4096)
	}
	c.Flush()
	want(t, c, true, k, 0, 4096)
	if s := c.Stats(); s.Written > 64<<10 {
		t.Errorf("a scan was admitted: %+v", s)
	}
}

func TestReopen(t *testing.T) {
	fsys := crashdisk.New()
	c := open(t, options(fsys))
	put(c, key(1, 0), 4096, 300<<10)
	put(c, key(1, 2), 0, 4096)
	if err := c.Close(); err != nil { // it writes what was put
		t.Fatal(err)
	}
	want(t, c, false, key(1, 2), 0, 4096)
	put(c, key(1, 3), 0, 4096)
	c.Flush()
	for _, pages := range []int{0, 4096, 12288, 65536} {
		o := options(fsys)
		o.PageBytes = pages
		c = open(t, o)
		want(t, c, true, key(1, 0), 4096, 300<<10)
		want(t, c, false, key(1, 0), 0, 8192)
		want(t, c, true, key(1, 2), 0, 4096)
		want(t, c, false, key(1, 3), 0, 4096)
		put(c, key(100+pages, 0), 0, 4096)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	o := options(fsys)
	o.Bytes, o.SegmentBytes = 1<<20, 128<<10 // less: the oldest go
	c = open(t, o)
	if _, n := files(t, fsys); n > o.Bytes {
		t.Errorf("%d bytes", n)
	}
	want(t, c, true, key(100+65536, 0), 0, 4096)
}

func TestKilled(t *testing.T) {
	fsys := crashdisk.New()
	c := open(t, options(fsys))
	put(c, key(1, 0), 0, 1<<20)
	c.Flush()
	c = open(t, options(fsys.Kill()))
	want(t, c, true, key(1, 0), 0, 512<<10)
	want(t, c, false, key(1, 0), 1<<20-4096, 4096) // in the segment that was open
	put(c, key(1, 0), 0, 1<<20)
	c.Flush()
	want(t, c, true, key(1, 0), 0, 1<<20)
}

func TestOneProcess(t *testing.T) {
	fsys := crashdisk.New()
	open(t, options(fsys))
	if _, err := Open(options(fsys)); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("%v", err)
	}
}

func TestForeignFiles(t *testing.T) {
	fsys := crashdisk.New()
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ours := []string{"0000000000000003.segment", "00000000000000ff.segment"}
	foreign := []string{"mine", "0000000000000003", "3.segment", "0000000000000000.segment", "00000000000000FF.segment"}
	for _, name := range append(ours, foreign...) {
		f, err := fsys.OpenFile(path.Join(dir, name), disk.Write|disk.Create, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("something else"), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	c := open(t, options(fsys))
	put(c, key(1, 0), 0, 4096)
	c.Flush()
	want(t, c, true, key(1, 0), 0, 4096)
	for _, name := range foreign {
		if _, err := fsys.Stat(path.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range ours {
		if _, err := fsys.Stat(path.Join(dir, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

func TestSecondChance(t *testing.T) {
	fsys := crashdisk.New()
	o := options(fsys)
	c := open(t, o)
	hot := key(1, 0)
	put(c, hot, 0, 64<<10)
	put(c, key(1, 1), 0, 64<<10)
	for i := range 400 { // several times what fits
		put(c, key(2+i, 0), 0, 32<<10)
		c.Flush()
		want(t, c, true, hot, 4096*uint32(i%16), 4096)
		if _, n := files(t, fsys); n > o.Bytes {
			t.Fatalf("%d bytes in files", n)
		}
	}
	want(t, c, true, hot, 0, 64<<10)
	want(t, c, false, key(1, 1), 0, 4096)
	s := c.Stats()
	if _, n := files(t, fsys); n != s.Bytes || s.Kept == 0 || s.Evicted == 0 {
		t.Errorf("%d bytes, %+v", n, s)
	}
	if s.Bytes < o.Bytes/2 {
		t.Errorf("only %d bytes are used", s.Bytes)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, o), true, hot, 0, 64<<10)
}

func TestConcurrent(t *testing.T) {
	o := options(crashdisk.New())
	o.Bytes, o.SegmentBytes = 1<<20, 128<<10
	c := open(t, o)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				k, off := key((i*7+g)%40, 0), uint32(i%16)*4096
				switch {
				case i%50 == 0:
					c.Bad(k, off)
				case i == 400 && g == 0:
					c.Close()
				case !get(t, c, k, off, 8192):
					put(c, k, off&^0x7fff, 32<<10)
				}
				if i%16 == 0 {
					c.Flush()
					c.Stats()
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Hits == 0 || s.Evicted == 0 {
		t.Errorf("%+v", s)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	o := options(crashdisk.New())
	c := open(t, o)
	k := key(1, 0)
	put(c, k, 0, 64<<10)
	c.Flush()
	p, crcs := make([]byte, 64<<10), make([]uint32, 16)
	if n := testing.AllocsPerRun(100, func() { c.Get(k, 0, p, crcs) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// While there is room everything is admitted; a scan of more than that evicts
// nothing that it met.
func TestAdmissionWithRoom(t *testing.T) {
	o := options(crashdisk.New())
	o.AdmitFirst, o.Bytes, o.QueueBytes = false, 4<<20, 256<<10
	c := open(t, o)
	for i := range 32 {
		put(c, key(1+i, 0), 0, 4096)
	}
	c.Flush()
	for i := range 32 {
		want(t, c, true, key(1+i, 0), 0, 4096)
	}
	for i := range 4000 {
		put(c, key(100+i, 0), 0, 4096)
		if i%32 == 0 {
			c.Flush()
		}
	}
	c.Flush()
	for i := range 32 {
		want(t, c, true, key(1+i, 0), 0, 4096)
	}
	if s := c.Stats(); s.Evicted > 0 || s.Written > 4<<20 {
		t.Errorf("a scan evicted: %+v", s)
	}
}

// GiveUp removes the oldest segments and their files, about as many bytes as it is told. The
// newest stay, also while nothing may be written, and the caller does not wait. What was
// given up may be put again.
func TestGiveUp(t *testing.T) {
	for _, off := range []bool{false, true} {
		fsys := faultdisk.New(crashdisk.New())
		o := options(fsys)
		c := open(t, o)
		const n = 60 // of 64 KiB: fifteen of the sixteen segments
		for i := range n {
			put(c, key(i, 0), 0, 64<<10)
			c.Flush()
		}
		_, before := files(t, fsys)
		if off {
			fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Err: unix.ENOSPC})
			put(c, key(n, 0), 0, 64<<10)
			c.Flush()
			_, before = files(t, fsys)
		}
		const owed = 1 << 20
		if !off { // they come while it is busy
			writes := faultdisk.NewGate()
			rule := fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Before: writes.Wait})
			put(c, key(n, 0), 0, 64<<10)
			<-writes.Arrived()
			c.GiveUp(owed / 2)
			c.GiveUp(owed) // not both
			rule.Remove()
			defer writes.Open()
			c.GiveUp(owed / 4)
			_, before = files(t, fsys)
			before += 64 << 10
			writes.Open()
		}
		door := faultdisk.NewGate()
		fsys.Inject(faultdisk.Rule{Ops: faultdisk.Remove, Before: door.Wait})
		if off {
			c.GiveUp(owed)
		}
		<-door.Arrived()
		want(t, c, true, key(n-2, 0), 0, 4096) // it is read while a file goes
		door.Open()
		c.Flush() // the writer was at it: it is busy until all that is owed has gone
		_, after := files(t, fsys)
		if gone := before - after; gone < owed || gone > owed+2*o.SegmentBytes {
			t.Errorf("off %v: %d bytes are gone, and %d were to go", off, gone, owed)
		}
		if s := c.Stats(); s.Bytes > after+o.SegmentBytes || s.Evicted < owed/2 {
			t.Errorf("off %v: %d bytes in files, and %+v", off, after, s)
		}
		want(t, c, false, key(0, 0), 0, 4096)
		for i := n - 20; i < n-1; i++ {
			want(t, c, true, key(i, 0), 0, 64<<10)
		}
		fsys.Clear()
		if !off {
			put(c, key(0, 0), 0, 64<<10)
			c.Flush()
			want(t, c, true, key(0, 0), 0, 64<<10)
			for i := range 15 { // in the places of those that went
				put(c, key(n+1+i, 0), 0, 64<<10)
				c.Flush()
			}
			for i := range 12 {
				want(t, c, false, key(1+i, 0), 0, 64<<10)
			}
		}
		c.GiveUp(1 << 40) // more than there is
		c.Flush()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.GiveUp(owed) // of one that is closed nothing
	}
}
