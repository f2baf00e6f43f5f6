package host

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	albahere "openvstorage/alba/embedded"
	"openvstorage/device"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/size"
	"openvstorage/volumedriver/volumetest"
)

// errnoKinds names the kinds of file of a data directory, the first that matches
// deciding.
var errnoKinds = []struct {
	kind string
	path *regexp.Regexp
}{
	{"directory", regexp.MustCompile(`^/$|^/data$`)},
	{"record", regexp.MustCompile(`^/data/ovs\.format`)},
	{"lock", regexp.MustCompile(`^/data/lock$`)},
	{"pool", regexp.MustCompile(`^/data/buffer/pool`)},
	{"sco", regexp.MustCompile(`^/data/buffer/[^/]+/sco-`)},
	{"tlog", regexp.MustCompile(`^/data/buffer/[^/]+/tlog-`)},
	{"buffer", regexp.MustCompile(`^/data/buffer`)},
	{"abm log", regexp.MustCompile(`^/data/arakoon/abm/log`)}, {"nsm log", regexp.MustCompile(`^/data/arakoon/nsm-0/log`)}, {"registry log", regexp.MustCompile(`^/data/arakoon/registry/log`)},
	{"abm state", regexp.MustCompile(`^/data/arakoon/abm/state`)}, {"nsm state", regexp.MustCompile(`^/data/arakoon/nsm-0/state`)}, {"registry state", regexp.MustCompile(`^/data/arakoon/registry/state`)},
	{"group", regexp.MustCompile(`^/data/arakoon`)},
	{"map", regexp.MustCompile(`^/data/map`)},
	{"identity", regexp.MustCompile(`^/data/asd/\d+/identity`)},
	{"checkpoint", regexp.MustCompile(`^/data/asd/\d+/index`)},
	{"reserve", regexp.MustCompile(`^/data/asd/\d+/reserve`)},
	{"asd lock", regexp.MustCompile(`^/data/asd/\d+/lock`)},
	{"segment", regexp.MustCompile(`^/data/asd/\d+/(new|.*\.seg)$`)},
	{"asd", regexp.MustCompile(`^/data/asd`)},
	{"cache", regexp.MustCompile(`^/data/cache`)},
	{"object", regexp.MustCompile(`^/data/backend/[^.]`)},
	{"store", regexp.MustCompile(`^/data/backend`)},
	{"old registry", regexp.MustCompile(`^/data/registry`)},
}

// pebbleFiles are the kinds of file of a Pebble.
var pebbleFiles = map[string]string{
	"MANIFEST-": "manifest", "OPTIONS-": "options", "marker.": "marker", "temporary.": "temporary", "LOCK": "lock",
}

func errnoKind(name string) string {
	for _, k := range errnoKinds {
		if !k.path.MatchString(name) {
			continue
		}
		if k.kind != "map" && !strings.HasSuffix(k.kind, "state") {
			return k.kind
		}
		base := path.Base(name)
		for prefix, file := range pebbleFiles {
			if strings.HasPrefix(base, prefix) {
				return k.kind + " " + file
			}
		}
		if ext := path.Ext(base); ext != "" {
			return k.kind + " " + ext[1:]
		}
		return k.kind
	}
	return ""
}

// mayHalt is where one failed call may halt a vDisk, or end a group, until the
// next start. At everything else the process goes on, or does not start.
var mayHalt = []struct {
	kind   string // or the beginning of it
	ops    faultdisk.Op
	causes []disk.Cause // none: whatever the errno is
	why    string
}{
	// P6: what the sync was to make durable is lost for the file, and it may be
	// nowhere else.
	{"sco", faultdisk.Datasync | faultdisk.Sync, nil, "a sync of the vDisk's own data"},
	{"tlog", faultdisk.Datasync | faultdisk.Sync, nil, "a sync of the vDisk's own log"},
	// The page store has what memory has no room for, and cannot be trusted after
	// a failed change until it is opened anew. A directory that cannot be opened
	// to be synced is no failed sync.
	{"map", faultdisk.Datasync | faultdisk.Sync, nil, "a sync of map pages"},
	{"map", faultdisk.SyncDir, []disk.Cause{disk.BadDisk, disk.Full, disk.Scarce}, "a sync of their names"},
	{"map", faultdisk.Any, []disk.Cause{disk.BadDisk}, "a bad disk under map pages"},
	// The kernel tells of a lost name once, and the next sync would lie.
	{"object", faultdisk.SyncDir, nil, "a sync of the names of objects"},
	{"store", faultdisk.SyncDir, nil, "a sync of the names of namespaces"},
}

func mayBeHalted(c volumetest.ErrnoCase) bool {
	for _, m := range mayHalt {
		if strings.HasPrefix(c.Kind, m.kind) && m.ops&c.Op != 0 && (m.causes == nil || slices.Contains(m.causes, disk.CauseOf(c.Errno))) &&
			!(c.Op == faultdisk.SyncDir && !disk.SyncBegun(c.Errno)) {
			return true
		}
	}
	return false
}

// openErrno opens all that `ovs up` opens, on a disk.
func openErrno(kind string, maintain albahere.Maintain, closing func(*whole) error) volumetest.Opener {
	return func(fs disk.FS) (*volumetest.System, error) {
		dir, err := datadir.Open(fs, "/data")
		if err != nil {
			return nil, err
		}
		h, err := openEmbedded(context.Background(), openOptions{
			fs: fs, dir: dir, writeBuffer: 64 * size.MiB, mapCache: size.MiB, uploads: 2, backend: kind, logger: quiet,
			tune: func(o *albahere.Options) {
				o.SegmentBytes, o.CacheBytes = 4<<20, int64(CacheMin)
				o.ReopenEvery, o.Maintain = 5*time.Millisecond, maintain
			},
		})
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		e := &whole{h, dir}
		return &volumetest.System{
			Host:  e.Host,
			Close: func() error { return closing(e) },
			Err: func() error {
				err := e.groups.Node(registryGroup).Err()
				if s, ok := e.backend.(interface{ Err() error }); ok {
					err = errors.Join(err, s.Err())
				}
				return err
			},
		}, nil
	}
}

// What a first start made, and a flush, outlive a power cut that takes all names
// and bytes that nobody has synced.
func TestPowerCutAfterTheFirstFlush(t *testing.T) {
	for _, kind := range []string{BackendALBA, BackendLocal} {
		t.Run(kind, func(t *testing.T) {
			open := openErrno(kind, albahere.Maintain{ByHand: true}, func(e *whole) error { return e.Close(context.Background()) })
			mem := crashdisk.New()
			s, err := open(mem)
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte("flushed."), 1<<10)
			if _, err := s.Host.Create(t.Context(), "v", 1<<20); err != nil {
				t.Fatal(err)
			}
			d, release, err := openDisk(t.Context(), s.Host, "v")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(d.Write(t.Context(), []device.Span{{Data: want}}), d.Flush(t.Context())); err != nil {
				t.Fatal(err)
			}
			image := mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
			release()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = open(image); err != nil {
				t.Fatal(err)
			}
			if d, release, err = openDisk(t.Context(), s.Host, "v"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			if err := d.Read(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("what was flushed is not there: %v", err)
			}
			release()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An errno is not damage: each kind of call on each kind of file, answered once
// with each errno, at the start, at work and at the end. A run of the test tries
// each kind of call and some errnos of it, drawn anew each time. OVS_ERRNOS=N
// tries N cases, 0 all that there are, each call of a run in turn; with
// OVS_TEST_ERRNO=PATTERN only those whose name matches.
func TestErrnos(t *testing.T) {
	busy := albahere.Maintain{
		Tick: time.Millisecond, Survey: 10 * time.Millisecond, Collect: 10 * time.Millisecond, Grace: 5 * time.Millisecond,
		RebuildAfter: time.Hour, Scrub: time.Millisecond,
	}
	for kind, cases := range map[string]int{BackendALBA: 300, BackendLocal: 150} {
		t.Run(kind, func(t *testing.T) {
			if n, err := strconv.Atoi(os.Getenv("OVS_ERRNOS")); err == nil {
				cases = n
			}
			closing := func(e *whole) error { return e.Close(context.Background()) }
			judging := closing
			if kind == BackendALBA {
				judging = func(e *whole) error { return closeWhole(e, false) }
			}
			volumetest.Errnos(t, volumetest.ErrnoSuite{
				Open:    openErrno(kind, busy, closing),
				Judge:   openErrno(kind, albahere.Maintain{ByHand: true}, judging),
				Kind:    errnoKind,
				MayHalt: mayBeHalted,
				Cases:   cases,
			})
		})
	}
}

// openDisk is OpenDevice of a vDisk.
func openDisk(ctx context.Context, h interface {
	OpenDevice(context.Context, string) (device.Reader, func(), error)
}, name string) (device.Device, func(), error) {
	d, release, err := h.OpenDevice(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return d.(device.Device), release, nil
}
