package arakoon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
)

// lines keep what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func sampleList() []byte {
	return appendSnapshotList(nil, SnapshotID{1, 2, 3}, []SnapshotFile{{"000004.sst", 70000, 0x1234}, {"MANIFEST-000001", 0, 0}})
}

// appendCRC gives bytes the CRC that a description ends with.
func appendCRC(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))
}

func TestSnapshotList(t *testing.T) {
	b := sampleList()
	id, files, err := decodeSnapshotList(b)
	if err != nil || id != (SnapshotID{1, 2, 3}) || len(files) != 2 || files[0] != (SnapshotFile{"000004.sst", 70000, 0x1234}) {
		t.Fatal(id, files, err)
	}
	if _, _, err := decodeSnapshotList(b[:len(b)-1]); !errors.Is(err, errSnapshotData) {
		t.Error(err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "../x", "a\x00", strings.Repeat("x", 256)} {
		if _, _, err := decodeSnapshotList(appendSnapshotList(nil, id, []SnapshotFile{{Name: name}})); !errors.Is(err, errSnapshotData) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, files := range [][]SnapshotFile{nil, {{Name: "b"}, {Name: "a"}}, {{Name: "a"}, {Name: "a"}}, {{Name: "a", Size: -1}}} {
		if _, _, err := decodeSnapshotList(appendSnapshotList(nil, id, files)); !errors.Is(err, errSnapshotData) {
			t.Errorf("%v: %v", files, err)
		}
	}
	b[0] = 2
	b = appendCRC(b[:len(b)-4])
	if _, _, err := decodeSnapshotList(b); !errors.Is(err, format.ErrNewer) {
		t.Error(err)
	}
}

func FuzzSnapshotList(f *testing.F) {
	f.Add(sampleList())
	f.Fuzz(func(t *testing.T, b []byte) {
		id, files, err := decodeSnapshotList(b)
		if err == nil && !bytes.Equal(appendSnapshotList(nil, id, files), b) {
			t.Fatal("what was read writes otherwise")
		}
		if len(b) > 4 {
			_, _, _ = decodeSnapshotList(appendCRC(b[:len(b)-4]))
		}
	})
}

// Bytes pass at the rate, whoever asks, and the end of the node ends the wait.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newShutdown("/x")
		end.onEnd = func(error) {}
		p := &pace{rate: 1000}
		began := time.Now()
		var done sync.WaitGroup
		for range 11 {
			done.Go(func() {
				if err := p.wait(500, end); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("5500 bytes at 1000 a second took %v", d)
		}
		go end.begin()
		if err := p.wait(1, end); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		p = &pace{rate: 1000, busyRate: 100, busy: func() bool { return time.Since(began) < time.Minute }}
		began = time.Now()
		end = newShutdown("/x")
		for range 13 { // twelve take a minute, and the next one a second
			if err := p.wait(500, end); err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(began); d != time.Minute {
			t.Errorf("beside other work 6000 bytes took %v", d)
		}
		if err := (&pace{rate: -1}).wait(1<<40, end); err != nil {
			t.Error(err)
		}
	})
}

// A fetch is given up for another snapshot when nothing came and nothing was checked between
// two offers of that, and not before.
func TestFetchIsGivenUpForAnother(t *testing.T) {
	fs := crashdisk.New()
	if err := fs.MkdirAll("/in", 0o700); err != nil {
		t.Fatal(err)
	}
	ended := false
	i := &incoming{opt: Options{FS: fs}, busy: true, id: SnapshotID{1}, dir: "/in", had: -1, cancel: func() { ended = true }}
	for _, c := range []struct {
		offered SnapshotID
		checked int64
		ends    bool
	}{{offered: SnapshotID{2}}, {offered: SnapshotID{1}}, {offered: SnapshotID{2}, checked: 1}, {offered: SnapshotID{3}, checked: 1 << 20}, {offered: SnapshotID{3}, ends: true}} {
		i.checked.Add(c.checked)
		if i.compare(c.offered); ended != c.ends {
			t.Fatalf("%+v: given up %v", c, ended)
		}
	}
}
