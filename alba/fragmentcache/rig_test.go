package fragmentcache

import (
	"encoding/binary"
	"math/rand/v2"
	"path"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
)

const dir = "/cache"

func options(fsys disk.FS) Options {
	return Options{FS: fsys, Dir: dir, Bytes: 4 << 20, SegmentBytes: 256 << 10, AdmitFirst: true, now: new(clock).now}
}

// clock is a clock that tests move.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1, c.nanos.Load()) }

func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func open(t testing.TB, o Options) *Cache {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.Flush()
	return c
}

func key(object, fragment int) manifest.Key {
	k := manifest.Key{Namespace: 7, Chunk: 3, Fragment: uint8(fragment), Version: 9}
	binary.BigEndian.PutUint64(k.Object[8:], uint64(object))
	return k
}

func seed(k manifest.Key) uint64 {
	return manifest.Seed(k.Object, k.Chunk, uint32(k.Fragment))
}

// content is what block i of a fragment holds, and for ever.
func content(k manifest.Key, off uint32, n int) ([]byte, []uint32) {
	p := make([]byte, n)
	for at := 0; at < n; at += blockSize {
		rng := rand.NewPCG(seed(k), uint64(off)+uint64(at))
		a, b := rng.Uint64(), rng.Uint64()
		for i := 0; i < blockSize; i += 8 {
			binary.LittleEndian.PutUint64(p[at+i:], a+b*uint64(i))
		}
	}
	return p, osd.AppendCRCs(nil, seed(k), off/blockSize, p)
}

func put(c *Cache, k manifest.Key, off uint32, n int) {
	p, crcs := content(k, off, n)
	c.Put(k, off, p, crcs)
}

// verified reports whether bytes pass the caller's check.
func verified(k manifest.Key, off uint32, p []byte, crcs []uint32) bool {
	for i, crc := range crcs {
		if osd.BlockCRC(seed(k), off/blockSize+uint32(i), p[i*blockSize:][:blockSize]) != crc {
			return false
		}
	}
	return true
}

// get reports a hit, which must be right.
func get(t testing.TB, c *Cache, k manifest.Key, off uint32, n int) bool {
	t.Helper()
	p, crcs := make([]byte, n), make([]uint32, n/blockSize)
	if !c.Get(k, off, p, crcs) {
		return false
	}
	want, _ := content(k, off, n)
	if string(p) != string(want) {
		t.Fatalf("%v at %d: wrong bytes", k, off)
	}
	if !verified(k, off, p, crcs) {
		t.Fatalf("%v at %d: wrong checksums", k, off)
	}
	return true
}

func want(t testing.TB, c *Cache, hit bool, k manifest.Key, off uint32, n int) {
	t.Helper()
	if get(t, c, k, off, n) != hit {
		t.Fatalf("%v at %d, %d bytes: hit is not %v; %+v", k, off, n, hit, c.Stats())
	}
}

// files returns the segments and their bytes.
func files(t testing.TB, fsys disk.FS) (names []string, bytes int64) {
	t.Helper()
	all, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if _, ok := segmentNumber(name); ok {
			info, err := fsys.Stat(path.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			names, bytes = append(names, path.Join(dir, name)), bytes+info.Size()
		}
	}
	return names, bytes
}
