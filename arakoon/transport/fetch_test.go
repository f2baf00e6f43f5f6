package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/wire"
)

var testID = SnapshotID([]byte("0123456789abcdef"))

// source is a member's snapshot in memory. What is asked of it can be counted and changed.
type source struct {
	files  map[string][]byte
	open   atomic.Int64
	opened atomic.Int64 // how often
	mu     sync.Mutex
	reads  map[string]int
	asked  func(name string, off int64) error // before each read; nil: nothing
	spoil  func(name string, p []byte, off int64)
}

func newSource(seed uint64) *source {
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	s := &source{files: map[string][]byte{"empty": nil}, reads: map[string]int{}}
	for i, size := range []int{1, 100, 4096, readMax, 2*readMax + 777} {
		b := make([]byte, size)
		_, _ = rng.Read(b)
		s.files[fmt.Sprintf("%06d.sst", i)] = b
	}
	return s
}

func (s *source) OpenSnapshot(id SnapshotID) (Snapshot, error) {
	if id != testID {
		return nil, fmt.Errorf("%w: another one", ErrSnapshot)
	}
	s.open.Add(1)
	s.opened.Add(1)
	return s, nil
}

func (s *source) Close() { s.open.Add(-1) }

func (s *source) Files() (files []SnapshotFile) {
	for name, b := range s.files {
		files = append(files, SnapshotFile{Name: name, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)})
	}
	slices.SortFunc(files, func(a, b SnapshotFile) int { return strings.Compare(a.Name, b.Name) })
	return files
}

func (s *source) ReadAt(name string, p []byte, off int64) (int, error) {
	s.mu.Lock()
	s.reads[name]++
	asked, spoil := s.asked, s.spoil
	s.mu.Unlock()
	if asked != nil {
		if err := asked(name, off); err != nil {
			return 0, err
		}
	}
	n, err := bytes.NewReader(s.files[name]).ReadAt(p, off)
	if spoil != nil {
		spoil(name, p[:n], off)
	}
	return n, err
}

// count is how many reads there were of a file since the last call.
func (s *source) count() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.reads
	s.reads = map[string]int{}
	return was
}

// fetching is a network in which member 2 fetches from member 1.
func fetching(t *testing.T, kind string, fsys disk.FS, change func(*Options)) (*network, *source) {
	t.Helper()
	n := newNetwork(t, kind, 2, func(member uint64, o *Options) {
		if member == 2 {
			o.FS = fsys
			if change != nil {
				change(o)
			}
		}
	})
	src := newSource(1)
	n.hosts[0].snapshots = src
	return n, src
}

// holds fails the test unless the directory has the source's files, and returns what is wrong.
func (s *source) holds(fsys disk.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(names) != len(s.files) {
		return fmt.Errorf("there are %v", names)
	}
	for name, want := range s.files {
		f, err := fsys.OpenFile(path.Join(dir, name), 0, 0)
		if err != nil {
			return err
		}
		size, _ := f.Size()
		got := make([]byte, size)
		_, err = f.ReadAt(got, 0)
		f.Close()
		if err != nil && err != io.EOF || !bytes.Equal(got, want) {
			return fmt.Errorf("%s: %d bytes of %d, %v", name, size, len(want), err)
		}
	}
	return nil
}

// A fetch brings all files. A second one reads none again, but those that were damaged.
func TestFetch(t *testing.T) {
	for _, kind := range []string{"tcp", "tls"} {
		t.Run(kind, func(t *testing.T) {
			d := crashdisk.New()
			n, src := fetching(t, kind, d, nil)
			two := n.hosts[1].t
			if err := two.Fetch(t.Context(), 1, testID, "/member/incoming"); err != nil {
				t.Fatal(err)
			}
			if err := src.holds(d, "/member/incoming"); err != nil {
				t.Fatal(err)
			}
			if err := src.holds(d.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll), "/member/incoming"); err != nil {
				t.Errorf("after a power cut: %v", err)
			}
			src.count()
			f, err := d.OpenFile("/member/incoming/000003.sst", disk.Write, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("damage"), 500000); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if err := two.Fetch(t.Context(), 1, testID, "/member/incoming"); err != nil {
				t.Fatal(err)
			}
			if err := src.holds(d, "/member/incoming"); err != nil {
				t.Error(err)
			}
			if got := src.count(); len(got) != 1 || got["000003.sst"] != 1 {
				t.Errorf("reads: %v", got)
			}
			if err := two.Fetch(t.Context(), 1, SnapshotID{9}, "/member/other"); !errors.Is(err, ErrSnapshot) {
				t.Errorf("one that is not there: %v", err)
			}
			if src.open.Load() != 0 {
				t.Errorf("%d are open", src.open.Load())
			}
		})
	}
}

// A member opens a snapshot that another one says it needs, and reads nothing of it for that.
func TestHold(t *testing.T) {
	n, src := fetching(t, "tls", crashdisk.New(), nil)
	two := n.hosts[1].t
	if err := two.Hold(t.Context(), 1, testID); err != nil || src.opened.Load() != 1 || src.open.Load() != 0 || len(src.count()) != 0 {
		t.Errorf("opened %d times, %d are open: %v", src.opened.Load(), src.open.Load(), err)
	}
	if err := two.Hold(t.Context(), 1, SnapshotID{9}); !errors.Is(err, ErrSnapshot) {
		t.Error(err)
	}
}

// Whatever the disk operation at which the power fails, what is there under its own name is
// right, and another fetch makes it whole.
func TestFetchCrashes(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		mode := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[seed%4]
		d := crashdisk.New()
		n, src := fetching(t, "tcp", d, nil)
		cut := int64(rng.IntN(7))
		var asked atomic.Int64
		var crashed atomic.Pointer[crashdisk.FS]
		src.asked = func(string, int64) error {
			if asked.Add(1) == cut+1 {
				crashed.Store(d.Crash(rng, mode))
			}
			return nil
		}
		if err := n.hosts[1].t.Fetch(t.Context(), 1, testID, "/in"); err != nil {
			t.Fatal(err)
		}
		image := crashed.Load()
		if names, err := image.ReadDir("/in"); err == nil {
			for _, name := range names {
				if strings.HasSuffix(name, partSuffix) {
					continue
				}
				f, err := image.OpenFile("/in/"+name, 0, 0)
				if err != nil {
					t.Fatal(err)
				}
				size, _ := f.Size()
				got := make([]byte, size)
				_, _ = f.ReadAt(got, 0)
				f.Close()
				if !bytes.Equal(got, src.files[name]) {
					t.Errorf("seed %d: %s is not whole after a power cut", seed, name)
				}
			}
		}
		n2, src2 := fetching(t, "tcp", image, nil)
		if err := n2.hosts[1].t.Fetch(t.Context(), 1, testID, "/in"); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := src2.holds(image.Crash(rng, crashdisk.LoseAll), "/in"); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// A connection that breaks again and again is made anew within a fetch.
func TestFetchOverBreakingConnections(t *testing.T) {
	d := crashdisk.New()
	n, src := fetching(t, "tcp", d, nil)
	var conns []net.Conn
	var mu sync.Mutex
	n.wrap = func(from, _ uint64, c net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		if from == 2 {
			conns = append(conns, c)
		}
		return c
	}
	var reads atomic.Int64
	src.asked = func(string, int64) error {
		if n := reads.Add(1); n%3 == 2 && n < 12 {
			mu.Lock()
			defer mu.Unlock()
			conns[len(conns)-1].Close()
		}
		return nil
	}
	if err := n.hosts[1].t.Fetch(t.Context(), 1, testID, "/in"); err != nil {
		t.Fatal(err)
	}
	if err := src.holds(d, "/in"); err != nil {
		t.Error(err)
	}
	if len(conns) < 2 {
		t.Errorf("%d connections", len(conns))
	}
	for name, times := range src.count() {
		if most := 20; times > most {
			t.Errorf("%s was read %d times", name, times)
		}
	}
}

// A file that comes out wrong, by whoever's fault, is fetched anew, and never kept; one that
// stays wrong ends the fetch by name.
func TestFetchOfADamagedFile(t *testing.T) {
	for _, ever := range []bool{false, true} {
		d := crashdisk.New()
		n, src := fetching(t, "tcp", d, nil)
		var times atomic.Int64
		src.spoil = func(name string, p []byte, off int64) {
			if name == "000003.sst" && (times.Add(1) == 1 || ever) {
				p[7]++
			}
		}
		err := n.hosts[1].t.Fetch(t.Context(), 1, testID, "/in")
		if ever {
			_, there := d.Stat("/in/000003.sst")
			if !errors.Is(err, errDiffers) || !strings.Contains(err.Error(), "000003.sst") || there == nil {
				t.Errorf("always wrong: %v, and under its name: %v", err, there)
			}
			continue
		}
		if err := errors.Join(err, src.holds(d, "/in")); err != nil {
			t.Errorf("wrong once: %v", err)
		}
	}
}

// A fetch ends with its context, with the disk's error, and when nobody answers.
func TestFetchEnds(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		n, src := fetching(t, "tcp", crashdisk.New(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		src.asked = func(name string, _ int64) error { cancel(); return nil }
		if err := n.hosts[1].t.Fetch(ctx, 1, testID, "/in"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("full", func(t *testing.T) {
		d := faultdisk.New(crashdisk.New())
		n, _ := fetching(t, "tcp", d, nil)
		d.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "/in/...", Skip: 3, Err: syscall.ENOSPC})
		if err := n.hosts[1].t.Fetch(t.Context(), 1, testID, "/in"); disk.CauseOf(err) != disk.Full {
			t.Error(err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _ := fetching(t, "pipe", crashdisk.New(), nil)
			stopServer(n.hosts[0].server)
			begin := time.Now()
			if err := n.hosts[1].t.Fetch(t.Context(), 1, testID, "/in"); !errors.Is(err, wire.ErrNotSent) || time.Since(begin) != 30*time.Second {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
		})
	})
}

// Fetches take no more than they may in a second.
func TestFetchIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, src := fetching(t, "pipe", crashdisk.New(), func(o *Options) { o.FetchRate = 1 << 20 })
		begin := time.Now()
		if err := n.hosts[1].t.Fetch(t.Context(), 1, testID, "/in"); err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, b := range src.files {
			total += len(b)
		}
		least := time.Duration(float64(total-2*readMax) / (1 << 20) * float64(time.Second))
		if took := time.Since(begin); took < least || took > least+3*time.Second {
			t.Errorf("%d bytes at 1 MiB/s took %v", total, took)
		}
	})
}
