package crashdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openvstorage/internal/disk"
)

func TestScripts(t *testing.T) {
	text, err := os.ReadFile("testdata/crash.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range strings.Split(string(text), "\n== ")[1:] {
		title, lines, _ := strings.Cut(script, "\n")
		t.Run(title, func(t *testing.T) {
			s := &scriptRun{d: New()}
			for line := range strings.Lines(lines) {
				words := strings.Fields(line)
				if len(words) == 0 {
					continue
				}
				if err := s.run(words[0], words[1:]); err != nil {
					t.Fatalf("%s: %v", strings.TrimSpace(line), err)
				}
			}
		})
	}
}

type scriptRun struct {
	d     *FS
	other *FS
}

func (s *scriptRun) run(command string, args []string) error {
	switch command {
	case "crash":
		opt := map[string]Options{"lose": LoseAll, "keep": KeepAll}[args[0]]
		s.d = s.d.Crash(rand.New(rand.NewPCG(1, 1)), opt)
	case "kill":
		s.d = s.d.Kill()
	case "fork":
		s.other = s.d.Crash(rand.New(rand.NewPCG(1, 1)), KeepAll)
	case "other":
		s.d, s.other = s.other, s.d
	case "mkdir":
		return s.d.MkdirAll(args[0], 0o755)
	case "syncdir":
		return s.d.SyncDir(args[0])
	case "rename":
		return s.d.Rename(args[0], args[1])
	case "link":
		return s.d.Link(args[0], args[1])
	case "remove":
		return s.d.Remove(args[0])
	case "removeall":
		return s.d.RemoveAll(args[0])
	case "absent":
		if _, err := s.d.Stat(args[0]); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("it is there (%v)", err)
		}
	case "names":
		got, err := s.d.ReadDir(args[0])
		if err != nil || !slices.Equal(got, args[1:]) {
			return fmt.Errorf("holds %q, %v", got, err)
		}
	case "is":
		got, err := readFile(s.d, args[0])
		if want := bytesOf(args[1:]); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%d bytes that begin with %.20q, %v", len(got), got, err)
		}
	default:
		return s.file(command, args)
	}
	return nil
}

func (s *scriptRun) file(command string, args []string) error {
	f, err := s.d.OpenFile(args[0], disk.Write|disk.Create, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	var n []int64
	for _, a := range args[1:] {
		if k, err := strconv.ParseInt(a, 10, 64); err == nil {
			n = append(n, k)
		}
	}
	switch command {
	case "write":
		_, err = f.WriteAt(bytesOf(args[2:]), n[0])
	case "prewrite":
		err = f.Prewrite(n[0], n[1])
	case "truncate":
		err = f.Truncate(n[0])
	case "sync":
		err = f.Datasync()
	case "syncfail":
		f.(*File).SyncFailed()
	default:
		err = errors.New("no such command")
	}
	return err
}

// bytesOf reads "A*512 xyz 0*3": 512 times A, xyz, three zero bytes.
func bytesOf(words []string) []byte {
	var b []byte
	for _, w := range words {
		what, times, ok := strings.Cut(w, "*")
		if !ok {
			b = append(b, w...)
			continue
		}
		n, err := strconv.Atoi(times)
		if err != nil {
			panic(err)
		}
		if what == "0" {
			what = "\x00"
		}
		b = append(b, strings.Repeat(what, n)...)
	}
	return b
}

func readFile(d *FS, name string) ([]byte, error) {
	f, err := d.OpenFile(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
}
