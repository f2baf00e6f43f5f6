package volumedriver

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"openvstorage/backend/local"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

// newestTLog is the file of a vDisk's newest TLog, and the seq of its last entry.
func newestTLog(t *testing.T, fs *crashdisk.FS, v *Volume) (f disk.File, seed tlog.Seed, end int64, seq uint64) {
	t.Helper()
	dir := v.host.buffer.Dir(v.id)
	names, err := fs.ReadDir(dir)
	must(t, err)
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, "tlog-") })
	slices.Sort(names)
	for _, name := range names {
		f, err := fs.OpenFile(dir+"/"+name, disk.Write, 0)
		must(t, err)
		size, err := f.Size()
		must(t, err)
		h, entries, at, err := tlog.Ordered(f, size)
		if err != nil || len(entries) == 0 {
			must(t, f.Close())
			continue
		}
		return f, tlog.SeedOf(h.Incarnation), at, entries[len(entries)-1].Seq
	}
	t.Fatalf("no TLog among %v", names)
	return nil, 0, 0, 0
}

// What a later release has written behind the last entry is skipped if it says that
// it may be, and has its seq. All else is refused by name: nothing is cut, and the
// release that wrote it finds all of it.
func TestEntriesOfLaterReleases(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		e       tlog.Entry
		skipped bool
	}{
		"unknown kind that may be skipped": {tlog.Entry{Kind: 77, Flags: tlog.FlagSkippable, Addr: 5, Run: 9, Payload: make([]byte, 40)}, true},
		"unknown kind":                     {e: tlog.Entry{Kind: 77}},
		"known kind with a payload":        {e: tlog.Entry{Kind: tlog.KindTrim, Run: 1, Payload: make([]byte, 8)}},
		"known kind with a flag":           {e: tlog.Entry{Kind: tlog.KindTrim, Run: 1, Flags: 4}},
		"snapshot with a flag":             {e: tlog.Entry{Kind: tlog.KindSnapshot, Payload: append(make([]byte, 24), 6, 0, 0, 0, 0, 0, 0, 0)}},
		"write of another kind of place":   {e: tlog.Entry{Kind: tlog.KindWrite, Run: 1, Location: sco.Location(3 << 62), Payload: make([]byte, 4)}},
	} {
		t.Run(name, func(t *testing.T) {
			fs := crashdisk.New()
			r, d := newRig(t, fs, modelDisk, nil)
			write(t, d, 0, 4, 1)
			must(t, d.Flush(ctx))
			image := fs.Kill()
			f, seed, end, seq := newestTLog(t, image, volumeOf(t, r, "v"))
			c.e.Seq = seq + 1
			b := tlog.AppendEntry(nil, seed, c.e)
			if c.skipped { // and goes on behind it
				b = tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindTrim, Seq: seq + 2, Addr: 1, Run: 1})
			}
			_, err := f.WriteAt(b, end)
			must(t, err)
			must(t, f.Datasync())
			must(t, r.close())

			after := reopen(t, image, nil)
			i, err := after.host.Info(ctx, "v")
			must(t, err)
			if !c.skipped {
				if i.State != StateHalted || !strings.Contains(i.Reason, "newer") {
					t.Errorf("state %s, reason %q", i.State, i.Reason)
				}
				got := make([]byte, len(b))
				_, err := f.ReadAt(got, end)
				if must(t, err); !slices.Equal(got, b) {
					t.Error("it is cut")
				}
				return
			}
			if i.State != StateRunning {
				t.Fatalf("state %s, reason %q", i.State, i.Reason)
			}
			again, release, err := openDisk(ctx, after.host, "v")
			must(t, err)
			defer release()
			holdsPattern(t, again, 0, 1, 1)
			zero := make([]byte, 4096)
			must(t, again.Read(ctx, zero, 4096))
			if slices.ContainsFunc(zero, func(b byte) bool { return b != 0 }) {
				t.Error("what comes behind the entry is not applied")
			}
			if written := volumeOf(t, after, "v").buf.Written(); written < seq+2 {
				t.Errorf("seq %d, the last entry has %d", written, seq+2)
			}
			write(t, again, 8, 2, 3)
			must(t, after.host.Sync(ctx, "v", nil)) // the entry is stored, and read again
			third := reopen(t, image.Kill(), nil)
			holdsPattern(t, open(t, third.host, "v"), 8, 2, 3)
		})
	}
}

// A catalog that a later release has written halts its vDisk, by name, and stays as it
// is; the other vDisks are served. Once that release is back nothing is missing.
func TestCatalogOfLaterRelease(t *testing.T) {
	ctx := context.Background()
	for what, edit := range map[string]func(h []byte){
		"format 9":              func(h []byte) { h[10] = 9 },
		"features 0x10":         func(h []byte) { h[20] = 0x10 },
		"compatible features 0": func(h []byte) { h[17] = 1 },
	} {
		fs := crashdisk.New()
		r, d := newRig(t, fs, modelDisk, nil)
		write(t, d, 0, 4, 1)
		must(t, r.host.Sync(ctx, "v", nil))
		_, err := r.host.Create(ctx, "other", modelDisk)
		must(t, err)
		id := volumeOf(t, r, "v").id
		must(t, r.close())

		back, err := local.Open(fs, "/data/backend", local.Options{})
		must(t, err)
		ns := back.Namespace(id.String())
		put := func(edit func(b []byte)) []byte {
			t.Helper()
			info, err := ns.Stat(ctx, catalog.ObjectName)
			must(t, err)
			b := make([]byte, info.Size)
			must(t, get(ctx, ns, catalog.ObjectName, b, 0))
			if edit != nil {
				edit(b)
				binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
				binary.LittleEndian.PutUint32(b[len(b)-4:], format.CRC(b[:len(b)-4]))
				_, err = ns.PutIf(ctx, catalog.ObjectName, b, info.Version)
				must(t, err)
			}
			return b
		}
		good := put(nil)
		newer := put(edit)
		must(t, back.Close())

		after, err := openRig(fs, nil)
		must(t, err)
		i, err := after.host.Info(ctx, "v")
		must(t, err)
		if i.State != StateHalted || !strings.Contains(i.Reason, "written by a newer release") || !strings.Contains(i.Reason, what) {
			t.Errorf("%s: state %s, reason %q", what, i.State, i.Reason)
		}
		write(t, open(t, after.host, "other"), 0, 1, 2)
		must(t, after.close())

		back, err = local.Open(fs, "/data/backend", local.Options{})
		must(t, err)
		ns = back.Namespace(id.String())
		if !slices.Equal(put(nil), newer) {
			t.Errorf("%s: the catalog was changed", what)
		}
		put(func(b []byte) { copy(b, good) })
		must(t, back.Close())
		holdsPattern(t, open(t, reopen(t, fs, nil).host, "v"), 0, 4, 1)
	}
}
