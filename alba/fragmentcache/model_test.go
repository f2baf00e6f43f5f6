package fragmentcache

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// TestModel makes random calls on a small cache, and compares each hit with what was put.
// Until something is evicted, dropped or lost, what was put hits, and everything else
// misses.
func TestModel(t *testing.T) {
	for n := range uint64(4) {
		rng := rand.New(rand.NewPCG(n, 1))
		fsys := crashdisk.New()
		o := options(fsys)
		o.Bytes, o.SegmentBytes = 1<<20+int64(rng.IntN(1<<20)), 128<<10+int64(rng.IntN(1<<16))
		c := open(t, o)
		type block struct{ object, fragment, n int }
		model := map[block]bool{}
		hits := 0
		for step := range 600 {
			b := block{rng.IntN(6), rng.IntN(2), rng.IntN(100)}
			k, off, size := key(b.object, b.fragment), uint32(b.n)*blockSize, 1+rng.IntN(10)
			switch op := rng.IntN(100); {
			case op < 40:
				put(c, k, off, size*blockSize)
				for i := range size {
					model[block{b.object, b.fragment, b.n + i}] = true
				}
				c.Flush()
			case op < 95:
				there := true
				for i := range size {
					there = there && model[block{b.object, b.fragment, b.n + i}]
				}
				hit := get(t, c, k, off, size*blockSize)
				if hit {
					hits++
				}
				if hit && !there || !hit && there && step < 20 {
					t.Fatalf("step %d: hit is %v, it was put: %v", step, hit, there)
				}
			case op < 97 && step >= 20:
				c.Bad(k, off) // it may be found again after a start
			case op < 99 && step >= 20:
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				o.PageBytes = blockSize * (1 + rng.IntN(16))
				c = open(t, o)
			case step >= 20:
				fsys = fsys.Kill()
				o.FS = fsys
				c = open(t, o)
			}
			if _, bytes := files(t, fsys); bytes > o.Bytes {
				t.Fatalf("step %d: %d bytes of %d", step, bytes, o.Bytes)
			}
		}
		if s := c.Stats(); hits < 20 || s.Off {
			t.Errorf("%d hits, %+v", hits, s)
		}
	}
}

// TestBitFlips flips bits of every file. What the caller's check lets pass is
// right, and the cache goes on.
func TestBitFlips(t *testing.T) {
	fsys := crashdisk.New()
	o := options(fsys)
	c := open(t, o)
	for i := range 10 {
		put(c, key(i, 0), 0, 128<<10)
		c.Flush()
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	names, _ := files(t, fsys)
	for range 25 {
		o.FS = fsys.Kill()
		for _, name := range names {
			if rng.IntN(2) == 0 {
				damage(t, rng, o.FS, name)
			}
		}
		c := open(t, o)
		damage(t, rng, o.FS, names[rng.IntN(len(names))]) // while it is open too, if it is there still
		bad := 0
		for i := range 10 {
			k := key(i, 0)
			p, crcs := make([]byte, 128<<10), make([]uint32, 32)
			for range 2 { // a miss for one page says nothing of the others
				if c.Get(k, 0, p, crcs) && !verified(k, 0, p, crcs) {
					bad++
					c.Bad(k, 0)
				}
				put(c, k, 0, 128<<10)
				c.Flush()
			}
			want(t, c, true, k, 0, 128<<10)
		}
		for i := range 40 { // evict what is damaged
			put(c, key(20+i, 0), 0, 128<<10)
			c.Flush()
		}
		if s := c.Stats(); s.Off || int(s.Corrupt) != bad {
			t.Fatalf("%d were bad, %+v", bad, s)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// damage flips a bit somewhere, near the end as often as not.
func damage(t *testing.T, rng *rand.Rand, fsys disk.FS, name string) {
	f, err := fsys.OpenFile(name, disk.Write, 0)
	if err != nil {
		return
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size == 0 {
		return
	}
	off := rng.Int64N(size)
	if rng.IntN(2) == 0 {
		off = size - 1 - rng.Int64N(min(size, 1000))
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << rng.IntN(8)
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestFailedWrite(t *testing.T) {
	for name, rule := range map[string]faultdisk.Rule{
		"full":   {Ops: faultdisk.Write, Err: unix.ENOSPC, Short: 5000, Skip: 12},
		"EIO":    {Ops: faultdisk.Write, Err: unix.EIO, Skip: 7},
		"open":   {Ops: faultdisk.Open, Err: unix.EMFILE, Skip: 3},
		"remove": {Ops: faultdisk.Remove, Err: unix.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := crashdisk.New()
			faulty := faultdisk.New(fsys)
			o := options(faulty)
			var clock clock
			o.now = clock.now
			c := open(t, o)
			faulty.Inject(rule)
			for i := range 100 {
				put(c, key(i, 0), 0, 64<<10)
				c.Flush()
			}
			hits := 0
			for i := range 100 {
				if get(t, c, key(i, 0), 0, 64<<10) {
					hits++
				}
			}
			if s := c.Stats(); !s.Off || s.Dropped == 0 || hits == 0 {
				t.Errorf("%d hits, %+v", hits, s)
			}
			if _, n := files(t, fsys); n > o.Bytes {
				t.Errorf("%d bytes", n)
			}
			// It is tried again after a while, and after a longer one.
			for _, rest := range []time.Duration{pauseMin, 2 * pauseMin} {
				clock.advance(rest - 1)
				if !c.pausing() {
					t.Errorf("it is tried again before %v are over", rest)
				}
				clock.advance(1)
				if c.pausing() {
					t.Errorf("it is not tried again after %v", rest)
				}
				for i := range 100 {
					put(c, key(2000+i, 0), 0, 64<<10)
					c.Flush()
				}
				if s := c.Stats(); !s.Off {
					t.Errorf("%v: %+v", rest, s)
				}
				if _, n := files(t, fsys); n > o.Bytes {
					t.Errorf("%d bytes", n)
				}
			}
			// When the disk is well again it goes on by itself.
			faulty.Clear()
			clock.advance(pauseMax)
			for i := range 100 {
				put(c, key(3000+i, 0), 0, 64<<10)
				c.Flush()
			}
			want(t, c, true, key(3099, 0), 0, 64<<10)
			if s := c.Stats(); s.Off {
				t.Errorf("%+v", s)
			}
			if _, n := files(t, fsys); n > o.Bytes {
				t.Errorf("%d bytes", n)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			c = open(t, o)
			put(c, key(1000, 0), 0, 64<<10)
			c.Flush()
			want(t, c, true, key(1000, 0), 0, 64<<10)
		})
	}
}

func TestFailedRead(t *testing.T) {
	faulty := faultdisk.New(crashdisk.New())
	c := open(t, options(faulty))
	k := key(1, 0)
	put(c, k, 0, 200<<10)
	c.Flush()
	injected := faulty.Inject(faultdisk.Rule{Ops: faultdisk.Read, Err: unix.EIO})
	want(t, c, false, k, 0, 4096)
	for i := range 100 { // neither their indexes nor what was hit can be read
		put(c, key(2+i, 0), 0, 64<<10)
		c.Flush()
	}
	injected.Remove()
	want(t, c, true, key(101, 0), 0, 64<<10)
	want(t, c, false, k, 0, 4096)
	s := c.Stats()
	if s.ReadErrors == 0 || s.Evicted == 0 || s.Off {
		t.Errorf("%+v", s)
	}
	if extents, _ := c.index.size(); int64(extents)*32<<10 > s.Bytes {
		t.Errorf("%d extents in %d bytes: those of evicted segments are there", extents, s.Bytes)
	}
}

func TestFailedOpen(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Mkdir, faultdisk.ReadDir, faultdisk.Lock} {
		faulty := faultdisk.New(crashdisk.New())
		o := options(faulty)
		before := open(t, o)
		put(before, key(1, 0), 0, 64<<10)
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		var clock clock
		o.now = clock.now
		injected := faulty.Inject(faultdisk.Rule{Ops: op, Err: unix.EMFILE})
		c := open(t, o)
		put(c, key(2, 0), 0, 64<<10)
		c.Flush()
		if s := c.Stats(); !s.Off || s.Dropped == 0 {
			t.Errorf("%v: %+v", op, s)
		}
		want(t, c, false, key(1, 0), 0, 4096)
		injected.Remove()
		clock.advance(pauseMin)
		put(c, key(2, 0), 0, 64<<10)
		c.Flush()
		want(t, c, true, key(1, 0), 0, 64<<10)
		want(t, c, true, key(2, 0), 0, 64<<10)
		if s := c.Stats(); s.Off {
			t.Errorf("%v: %+v", op, s)
		}
	}
	for _, o := range []Options{{Bytes: 1}, {Bytes: 1 << 60}, {Bytes: 1 << 20, PageBytes: 5000}, {Bytes: 1 << 20, PageBytes: 1 << 20}} {
		o.FS, o.Dir = crashdisk.New(), dir
		if _, err := Open(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestFullQueue holds the writer up: what does not fit is dropped at once.
func TestFullQueue(t *testing.T) {
	faulty := faultdisk.New(crashdisk.New())
	o := options(faulty)
	o.QueueBytes = 256 << 10
	c := open(t, o)
	gate := faultdisk.NewGate()
	faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write, Before: gate.Wait})
	for i := range 20 {
		put(c, key(i, 0), 0, 32<<10)
	}
	gate.Open()
	c.Flush()
	if s := c.Stats(); s.Dropped < 12*32<<10 || s.Written+s.Dropped != 20*32<<10 {
		t.Errorf("%+v", s)
	}
}
