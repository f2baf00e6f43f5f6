package embedded

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"openvstorage/alba/health"
	"openvstorage/internal/disk"
)

// systems gives directories file systems of their own.
type systems struct {
	disk.FS
	of map[string]uint64 // by directory; "/" has the rest
}

func (s *systems) Statfs(name string) (disk.Usage, error) {
	u, err := s.FS.Statfs(name)
	u.ID = 1
	for dir, id := range s.of {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			u.ID = id
		}
	}
	return u, err
}

// A first start makes no ASD where something should be mounted; it says so when ASDs
// share a file system; and plain directories will do.
func TestFirstStartOnUnmounted(t *testing.T) {
	own := map[string]uint64{"/mnt/0": 10, "/mnt/1": 11, "/mnt/2": 12, "/mnt/raid": 13}
	for _, row := range []struct {
		what   string
		dirs   []string
		absent string // a mount point that is written down, with nothing mounted
		allow  bool
		refuse string // what the error names
		warn   string // what the log names
	}{
		{what: "directories of the data directory"},
		{what: "a mount each", dirs: []string{"/mnt/0", "/mnt/1", "/mnt/2"}},
		{what: "one is in fstab and not mounted", dirs: []string{"/mnt/0", "/mnt/1", "/disks/2"}, absent: "/disks/2", refuse: "/etc/fstab"},
		{what: "one above it is", dirs: []string{"/mnt/0", "/mnt/1", "/disks/2/asd"}, absent: "/disks/2", refuse: "/disks/2 is in"},
		{what: "it is meant so", dirs: []string{"/mnt/0", "/mnt/1", "/disks/2"}, absent: "/disks/2", allow: true},
		{what: "one below /mnt is on the file system of /", dirs: []string{"/mnt/0", "/mnt/1", "/mnt/3"}, refuse: "/mnt/3"},
		{what: "a link leads there", dirs: []string{"/mnt/0", "/mnt/1", "/srv/link"}, refuse: "/srv/link"},
		{what: "plain directories", dirs: []string{"/srv/0", "/srv/1", "/srv/2"}, warn: "/srv/1"},
		{what: "two on one mount", dirs: []string{"/mnt/raid/0", "/mnt/raid/1", "/mnt/2"}, warn: "/mnt/raid/1"},
	} {
		t.Run(row.what, func(t *testing.T) {
			mem := newDisk(t)
			fs := &systems{mem, own}
			for _, dir := range []string{"/mnt/0", "/mnt/1", "/mnt/2", "/mnt/3", "/mnt/raid", "/srv", "/srv/link", "/disks/2"} {
				must(t, fs.MkdirAll(dir, 0o700))
			}
			var log bytes.Buffer
			o := options(fs)
			o.Dirs, o.AllowUnmounted = row.dirs, row.allow
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.Resolve = func(dir string) string {
				if dir == "/srv/link" {
					return "/mnt/3"
				}
				return dir
			}
			o.Absent = func(dir string) (string, string, bool) {
				return row.absent, "/etc/fstab", row.absent != "" && strings.HasPrefix(dir, row.absent)
			}
			b, err := Open(ctx, o)
			if row.refuse != "" {
				if !errors.Is(err, ErrUnmounted) || !strings.Contains(err.Error(), row.refuse) || !strings.Contains(err.Error(), "--allow-unmounted") {
					t.Fatal(err)
				}
				for _, dir := range row.dirs {
					if names, err := fs.ReadDir(dir); err == nil && len(names) > 0 {
						t.Errorf("%s holds %v", dir, names)
					}
				}
				o.Absent = nil // it is mounted now
				fs.of = map[string]uint64{"/mnt/0": 10, "/mnt/1": 11, "/mnt/3": 14, "/disks/2": 15, "/srv/link": 14}
				b, err = Open(ctx, o)
			}
			must(t, err)
			if shared := strings.Contains(log.String(), "shares its file system"); shared != (row.warn != "") || !strings.Contains(log.String(), row.warn) {
				t.Error(log.String())
			}
			fill(t, b, "ns", 0, 4)
			must(t, b.Close())
			// A later start has the record: what is not there is missing.
			o.Dirs, o.AllowUnmounted = nil, false
			o.Absent = func(string) (string, string, bool) { return "/", "/etc/fstab", true }
			b, err = Open(ctx, o)
			must(t, err)
			diskStates(t, b, health.OK, health.OK, health.OK)
			holds(t, b, "ns", 4)
			// A disk more is looked at like the first.
			if err := b.CheckPlace("/disks/4"); !errors.Is(err, ErrUnmounted) {
				t.Error(err)
			}
			must(t, b.CheckPlace(""))
			must(t, b.CheckPlace("/data/asd/7"))
			must(t, b.Close())
		})
	}
}
