package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
)

// mapCache is a client.Cache that keeps all ranges as they came.
type mapCache struct {
	mu     sync.Mutex
	ranges map[string]cached
	spoil  bool // what is got has a bit flipped
	bad    int  // how many were dropped
}

type cached struct {
	p    []byte
	crcs []uint32
}

func (c *mapCache) at(key manifest.Key, off uint32) string {
	return fmt.Sprint(key.Object, key.Chunk, key.Fragment, off)
}

func (c *mapCache) Get(key manifest.Key, off uint32, p []byte, crcs []uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.ranges[c.at(key, off)]
	if !ok || len(r.p) != len(p) {
		return false
	}
	copy(p, r.p)
	copy(crcs, r.crcs)
	if c.spoil {
		p[len(p)/2] ^= 4
	}
	return true
}

func (c *mapCache) Put(key manifest.Key, off uint32, p []byte, crcs []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ranges[c.at(key, off)] = cached{bytes.Clone(p), append([]uint32(nil), crcs...)}
}

func (c *mapCache) Bad(key manifest.Key, off uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ranges, c.at(key, off))
	c.bad++
}

// withCache is a backend with a cache, and one object.
func withCache(t *testing.T, change func(o *client.Options)) (*opened, *mapCache) {
	t.Helper()
	c := &mapCache{ranges: make(map[string]cached)}
	o := &opened{want: dense(150_000, 61)}
	o.Backend = albatest.New(t, 3, plainPreset(twoOne), func(opt *client.Options) {
		opt.Cache = c
		o.heard.listen(opt)
		if change != nil {
			change(opt)
		}
	})
	check(t, o.CreateNamespace(ctx, "ns"))
	check(t, o.Namespace("ns").Put(ctx, "o", o.want))
	o.m = o.manifest(t, "o")
	return o, c
}

// reads counts the reads of all disks.
func (o *opened) reads() (n int) {
	for _, f := range o.Faults {
		n += f.Counted(osdtest.Read).Calls
	}
	return n
}

// What was read once is read from the cache: no disk is asked, and none needs to be
// there.
func TestCacheServesWithoutDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no read is slow
		o, _ := withCache(t, nil)
		same(t, o.Namespace("ns"), "o", o.want)
		before, hits := o.reads(), o.Stats().CacheHits
		for number := range o.Disks {
			o.Take(number)
		}
		same(t, o.Namespace("ns"), "o", o.want)
		if o.reads() != before || o.Stats().CacheHits == hits {
			t.Errorf("disks were read %d times, the cache %d times", o.reads()-before, o.Stats().CacheHits-hits)
		}
		for number := range o.Disks {
			o.Return(number)
		}
	})
}

// What the cache gives is checked as what a disk gives is: bad bytes are dropped,
// and read again where they come from. They are no news of a fragment.
func TestCacheWithBadBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no read is slow
		o, c := withCache(t, nil)
		same(t, o.Namespace("ns"), "o", o.want)
		c.spoil = true
		before := o.reads()
		same(t, o.Namespace("ns"), "o", o.want)
		if c.bad == 0 || o.reads() == before {
			t.Errorf("%d ranges were dropped, disks read %d times", c.bad, o.reads()-before)
		}
		if bad, unread := o.heard.takeAll(); len(bad)+len(unread) != 0 {
			t.Errorf("heard of it: %v, %v", bad, unread)
		}
		c.spoil = false
		before = o.reads()
		same(t, o.Namespace("ns"), "o", o.want)
		if o.reads() != before {
			t.Error("what was read again is not kept")
		}
	})
}

// What was made of other fragments is kept with the checksums that its own disk would
// have given; what was bad on a disk is not kept.
func TestCacheKeepsWhatWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no read is slow
		o, c := withCache(t, nil)
		o.fault(0, 0, osdtest.Rule{Flip: true})
		o.fault(1, 0, osdtest.Rule{Err: errDisk})
		same(t, o.Namespace("ns"), "o", o.want)
		if o.Stats().Degraded == 0 {
			t.Fatal("nothing was made of others")
		}
		c.mu.Lock()
		for chunk := range o.m.Chunks {
			key := o.m.Key(chunk, 0)
			r, ok := c.ranges[c.at(key, 0)]
			seed := manifest.Seed(o.m.Object, uint32(chunk), 0)
			if !ok || fmt.Sprint(r.crcs) != fmt.Sprint(osd.AppendCRCs(nil, seed, 0, r.p)) {
				t.Errorf("chunk %d: kept: %v, with checksums %x", chunk, ok, r.crcs)
			}
		}
		c.mu.Unlock()
		before := o.reads()
		same(t, o.Namespace("ns"), "o", o.want)
		if o.reads() != before {
			t.Error("it is read again")
		}
	})
}

// A new object of a name has nothing of the one before it, though all of that is in
// the cache.
func TestCacheOfAnObjectThatIsReplaced(t *testing.T) {
	o, _ := withCache(t, nil)
	ns := o.Namespace("ns")
	first, second := dense(100_000, 62), dense(100_000, 63)
	v, err := ns.PutIf(ctx, "p", first, 0)
	check(t, err)
	same(t, ns, "p", first)
	_, err = ns.PutIf(ctx, "p", second, v)
	check(t, err)
	same(t, ns, "p", second)
	check(t, ns.Delete(ctx, []string{"o"}, nil))
	check(t, ns.Put(ctx, "o", second))
	same(t, ns, "o", second)
}

// A key that is not there, or another, keeps an object from being read, by name,
// before any disk is asked; others are read.
func TestReadsWithoutKey(t *testing.T) {
	sealed := presets()["4,2 sealed"]
	b := open(t, sealed)
	check(t, b.CreateNamespace(ctx, "ns"))
	check(t, b.Namespace("ns").Put(ctx, "o", data(60_000, 64)))
	var keys func(uint64) ([]byte, error)
	c := client.New(client.Options{
		ABM: b.ABM, Fleet: b.Fleet, Host: func(uint64) (*nsm.Client, error) { return b.NSM, nil }, Key: func(n uint64) ([]byte, error) { return keys(n) },
	})
	defer c.Close()
	keys = func(uint64) ([]byte, error) { return nil, errDisk }
	p := make([]byte, 10)
	if _, err := c.Namespace("ns").Get(ctx, "o", p, 0); !errors.Is(err, errDisk) {
		t.Errorf("without its key: %v", err)
	}
	keys = func(uint64) ([]byte, error) { return bytes.Repeat([]byte{8}, 32), nil }
	if n, err := c.Namespace("ns").Get(ctx, "o", p, 0); err == nil {
		t.Errorf("with another key: %q", p[:n])
	}
	keys = func(uint64) ([]byte, error) { return bytes.Repeat([]byte{7}, 32), nil }
	c.Invalidate(1, "o")
	same(t, c.Namespace("ns"), "o", data(60_000, 64))
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Namespace("ns").Get(short, "o", p, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
