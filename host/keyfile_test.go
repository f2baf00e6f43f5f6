package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const keyLine = "1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff # the first\n"

// A key file that others may read, change or replace is refused, with what mends
// it; then it is taken.
func TestKeyFileOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	file, link := filepath.Join(dir, "k"), filepath.Join(dir, "link")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o700), os.WriteFile(file, []byte(keyLine), 0o600), os.Symlink(file, link))
	for _, mode := range []os.FileMode{0o600, 0o400, 0o604, 0o640, 0o620, 0o602, 0o660, 0o644, 0o666, 0o601, 0o777} {
		must(os.Chmod(file, mode))
		for _, name := range []string{file, link} {
			keys, err := readKeys(name)
			if good := mode&0o077 == 0; good != (err == nil) || good != (len(keys) == 1) {
				t.Errorf("mode %v by %s: %v", mode, name, err)
			} else if !good && !strings.Contains(err.Error(), "chmod 600 "+name) {
				t.Errorf("mode %v: no advice: %v", mode, err)
			}
		}
	}
	must(os.Chmod(file, 0o600))
	for mode, good := range map[os.FileMode]bool{0o755: true, 0o711: true, 0o775: false, 0o757: false, 0o777: false, 0o777 | os.ModeSticky: true} {
		must(os.Chmod(dir, mode))
		if _, err := readKeys(file); good != (err == nil) || !good && !strings.Contains(err.Error(), "chmod go-w "+dir) {
			t.Errorf("directory of mode %v: %v", mode, err)
		}
	}
	// By the link: both where it is and where it leads, and what is above.
	must(os.Chmod(dir, 0o700), os.Chmod(filepath.Dir(dir), 0o777))
	if _, err := readKeys(link); err == nil {
		t.Error("a directory above may be written by others")
	}
	must(os.Chmod(filepath.Dir(dir), 0o700))
	loose := filepath.Join(filepath.Dir(dir), "loose")
	must(os.Mkdir(loose, 0o700), os.Chmod(loose, 0o777), os.Symlink(file, filepath.Join(loose, "l")))
	if _, err := readKeys(filepath.Join(loose, "l")); err == nil || !strings.Contains(err.Error(), loose) {
		t.Errorf("a link that others may change: %v", err)
	}
	if _, err := readKeys(dir); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: files of other users are left out")
		return
	}
	must(os.Chown(file, 12345, 0))
	if _, err := readKeys(file); err == nil || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("somebody else's file: %v", err)
	}
	must(os.Chown(file, 0, 0), os.Chown(dir, 12345, 0))
	if _, err := readKeys(file); err == nil || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("somebody else's directory: %v", err)
	}
}

// Keys may come from a program, by a pipe.
func TestKeysOfPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(keyLine); err != nil {
		t.Fatal(err)
	}
	w.Close()
	keys, err := readKeys(fmt.Sprintf("/dev/fd/%d", r.Fd()))
	if err != nil || len(keys[1]) != 32 {
		t.Errorf("%v, %v", keys, err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.Chmod(fifo, 0o666)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // nobody waits for nobody
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := readKeys(fifo); err == nil || !strings.Contains(err.Error(), "0666") {
		t.Errorf("a pipe that others may write: %v", err)
	}
}

// What is wrong is told by line, and never with the line.
func TestKeyLines(t *testing.T) {
	line := strings.Fields(keyLine)[1]
	for _, bad := range []string{"1", "0 " + line, "1 " + line[1:], "1 " + line + "0", "x " + line, "1 " + line + "\n1 " + line, "1 " + line + " more", "-1 " + line} {
		_, err := parseKeys([]byte("# keys\n"+bad+"\n"), "k")
		if err == nil || strings.Contains(err.Error(), line[:8]) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	keys, err := parseKeys([]byte("\n # none\n"+keyLine+"18446744073709551615 "+line), "k")
	if err != nil || len(keys) != 2 || !bytes.Equal(keys[1], keys[1<<64-1]) {
		t.Errorf("%v, %v", keys, err)
	}
	file := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(file, bytes.Repeat([]byte("\n"), keyFileMax+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(file); err == nil {
		t.Error("a file of any length is read")
	}
}
