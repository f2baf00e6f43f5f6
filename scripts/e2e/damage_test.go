package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openvstorage/scripts/server"
	"openvstorage/scripts/stamp"
)

// TestBitFlips: after a clean stop one bit is flipped in the head, the middle and the
// tail of each regular file in turn. Whatever is then served is right. Whatever is
// refused is refused with the name of the file.
func TestBitFlips(t *testing.T) {
	const size = 16 * mib
	s := up(t, "--write-buffer", "64MiB")
	s.create("disk", size)
	scribble(t, s.Socket, "disk", 1, 0, 6*mib)
	s.ovs("vdisk", "snapshot", "create", "disk", "snap")
	s.ovs("vdisk", "clone", "disk@snap", "child")
	scribble(t, s.Socket, "disk", 2, 4*mib, 4*mib)
	s.ovs("vdisk", "sync", "disk")
	scribble(t, s.Socket, "child", 3, mib, 3*mib)
	scribble(t, s.Socket, "disk", 4, 9*mib, 2*mib) // not in the backend yet
	want := map[string][]byte{}
	for _, export := range []string{"disk", "disk@snap", "child"} {
		want[export] = content(t, s.Socket, export)
	}
	must(t, s.Stop(stopMax))

	pristine := s.Data + ".pristine"
	must(t, os.Rename(s.Data, pristine))
	sum := map[verdict]int{}
	for _, name := range regular(t, pristine) {
		info, err := os.Stat(filepath.Join(pristine, name))
		must(t, err)
		offsets := []int64{0, info.Size() / 2, info.Size() - 1}
		if testing.Short() {
			offsets = offsets[1:2]
		}
		for i, off := range offsets {
			must(t, os.RemoveAll(s.Data))
			sh(t, "cp", "-a", "--sparse=always", pristine, s.Data)
			flip(t, filepath.Join(s.Data, name), off, byte(1)<<(i*3))
			v, detail := s.serves(want, name)
			sum[v]++
			if v == wrong {
				t.Errorf("a bit flipped in %s at %d of %d: %s", name, off, info.Size(), detail)
				if s.Process != nil {
					t.Logf("ovs said:\n%s", s.Output())
				}
			}
		}
	}
	t.Logf("%v", sum)
}

// verdict on a directory with a flipped bit.
type verdict string

const (
	identical verdict = "identical"
	refused   verdict = "refused, with the file's name"
	wrong     verdict = "WRONG"
)

// regular lists the files below dir that have any bytes.
func regular(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, name)
		return err
	}))
	return names
}

func flip(t *testing.T, name string, off int64, bit byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var p [1]byte
	_, err = f.ReadAt(p[:], off)
	must(t, err)
	p[0] ^= bit
	_, err = f.WriteAt(p[:], off)
	must(t, err)
}

// serves starts ovs on the damaged directory and compares what it serves.
func (s *system) serves(want map[string][]byte, damaged string) (verdict, string) {
	s.t.Helper()
	p, err := server.Start(s.Up())
	if err != nil {
		return s.named(damaged, err.Error())
	}
	defer p.Kill()
	s.Process = p // whose output is shown
	all, detail := identical, ""
	for export, want := range want {
		err := compare(s, export, want)
		if err == nil {
			continue
		}
		if _, bad := err.(differ); bad {
			return wrong, err.Error()
		}
		// What was refused must be explained by the reply, the log or the list.
		disk, _, _ := strings.Cut(export, "@")
		said := err.Error() + p.Output()
		if info, infoErr := s.Info(disk); infoErr != nil {
			said += infoErr.Error()
		} else {
			said += info.Reason
		}
		if all, detail = s.named(damaged, said); all == wrong {
			return all, export + ": " + detail
		}
	}
	return all, detail
}

// named judges a refusal by whether it names the file.
func (s *system) named(file, said string) (verdict, string) {
	if strings.Contains(said, filepath.Base(file)) {
		return refused, ""
	}
	return wrong, "refused without the file's name: " + said
}

// differ says that wrong bytes were served.
type differ struct {
	export string
	off    int // of the first wrong byte
	detail string
}

func (d differ) Error() string {
	return fmt.Sprintf("WRONG BYTES in %s at %d: %s", d.export, d.off, d.detail)
}

// difference describes where got is not want, in the terms that tell a lost
// write (whole clusters, perhaps zeros) from an unchecked one (one bit).
func difference(export string, off int, got, want []byte) differ {
	first, bytesWrong, zeros := -1, 0, 0
	for i := range got {
		if got[i] != want[i] {
			if bytesWrong++; first < 0 {
				first = i
			}
			if got[i] == 0 {
				zeros++
			}
		}
	}
	return differ{export, off + first, fmt.Sprintf("%d bytes differ in the 64 KiB at %d, %d of them are zeros instead", bytesWrong, off, zeros)}
}

// compare reads an export in pieces and compares those that it gets. The error
// is of type differ for wrong bytes, and otherwise the last refusal.
func compare(s *system, export string, want []byte) (refusal error) {
	clients, err := stamp.Dial(s.t.Context(), s.Socket, export, 1)
	if err != nil {
		return err
	}
	defer stamp.Hangup(clients)
	if clients[0].Size() != int64(len(want)) {
		return differ{export, len(want), fmt.Sprintf("the export has %d bytes, want %d", clients[0].Size(), len(want))}
	}
	p := make([]byte, 64<<10)
	start := time.Now()
	for off := 0; off < len(want); off += len(p) {
		if _, err := clients[0].ReadAt(p, int64(off)); err != nil {
			refusal = err
		} else if !bytes.Equal(p, want[off:off+len(p)]) {
			return difference(export, off, p, want[off:off+len(p)])
		}
		if time.Since(start) > time.Minute {
			return fmt.Errorf("reading %s takes for ever", export)
		}
	}
	return refusal
}
