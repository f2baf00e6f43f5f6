package host

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	albaobject "openvstorage/alba/object"
)

// keyFileMax bounds a key file in bytes.
const keyFileMax = 1 << 20

// readKeys reads master keys: lines of a number and 64 hexadecimal digits, in which a #
// begins a comment. It refuses a file that other users may read or change: whoever has
// the keys can read all that was ever stored with them.
func readKeys(file string) (map[uint64][]byte, error) {
	// The file is opened once: so what is checked is what is read.
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("master keys: %w", err)
	}
	defer f.Close()
	if err := checkKeyFile(f, file); err != nil {
		return nil, fmt.Errorf("master keys: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, keyFileMax+1))
	if err == nil && len(b) > keyFileMax {
		err = fmt.Errorf("longer than %d bytes", keyFileMax)
	}
	if err != nil {
		return nil, fmt.Errorf("master keys: %s: %w", file, err)
	}
	return parseKeys(b, file)
}

func parseKeys(b []byte, file string) (map[uint64][]byte, error) {
	keys := make(map[uint64][]byte)
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		var number uint64
		var key []byte
		var err error
		if len(fields) == 2 {
			if number, err = strconv.ParseUint(fields[0], 10, 64); err == nil {
				key, err = hex.DecodeString(fields[1])
			}
		}
		if err != nil || len(key) != albaobject.MasterKeySize || number == 0 || keys[number] != nil {
			// The message does not quote the line, which may be a key.
			return nil, fmt.Errorf("master keys: %s:%d: not a new number above 0 and %d hexadecimal digits", file, n, 2*albaobject.MasterKeySize)
		}
		keys[number] = key
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("master keys: %s: %w", file, err)
	}
	return keys, nil
}

// checkKeyFile refuses a key file that users other than root and the user of this
// process may read, change, or replace. A file of root may be readable by a group if
// lentTo says that it is lent to this service so.
func checkKeyFile(f *os.File, file string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a directory; name the file", file)
	}
	me, st := uint32(os.Geteuid()), info.Sys().(*syscall.Stat_t)
	if st.Uid != 0 && st.Uid != me {
		return fmt.Errorf("%s belongs to uid %d, who may read and change it: chown %d %s", file, st.Uid, me, file)
	}
	others := fs.FileMode(0o077)
	if st.Uid == 0 && lentTo(st.Gid) {
		others = 0o037
	}
	if mode := info.Mode().Perm(); mode&others != 0 {
		return fmt.Errorf("%s may be read or changed by other users (mode %04o): chmod 600 %s; if others could see it, make a new key", file, mode, file)
	}
	if !info.Mode().IsRegular() {
		return nil // a pipe has no place
	}
	return checkPlace(file, me)
}

// checkOpenFile refuses a file that everybody may read, but not everybody may change, if users
// other than root and the user of this process may change or replace it.
func checkOpenFile(f *os.File, file string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	me, st := uint32(os.Geteuid()), info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case st.Uid != 0 && st.Uid != me:
		return fmt.Errorf("%s belongs to uid %d, who may change it: chown %d %s", file, st.Uid, me, file)
	case mode.Perm()&0o022 != 0:
		return fmt.Errorf("%s may be changed by other users (mode %04o): look what is in it, and chmod go-w %s", file, mode.Perm(), file)
	case !mode.IsRegular():
		return nil // reading tells, and a pipe has no place
	}
	return checkPlace(file, me)
}

// lentTo reports whether root lends its file to this service by the file's group. That
// is so if the service is not root's, or was given a group beside root's own. systemd
// leaves the group root on the credentials that it lends by name.
func lentTo(gid uint32) bool {
	if gid == 0 {
		return os.Geteuid() != 0
	}
	groups, _ := os.Getgroups()
	return int(gid) == os.Getegid() || slices.Contains(groups, int(gid))
}

// checkPlace refuses a file if other users may replace it, because they may write to its
// directory or to one above. Of a symbolic link it checks both where the link is and
// where it leads. A directory with the sticky bit is accepted: in it users replace only
// their own files.
func checkPlace(file string, me uint32) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	resolved, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	for _, name := range []string{resolved, file} {
		for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
			info, err := os.Stat(dir)
			if err != nil {
				return err
			}
			uid := info.Sys().(*syscall.Stat_t).Uid
			switch mode := info.Mode(); {
			case mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0:
				return fmt.Errorf("%s: other users may write the directory %s (mode %04o), and put another file in its place: chmod go-w %s, or move the file", file, dir, mode.Perm(), dir)
			case uid != 0 && uid != me && dir == filepath.Dir(name):
				return fmt.Errorf("%s: the directory %s belongs to uid %d, who may put another file in its place: move the file, or chown %d %s", file, dir, uid, me, dir)
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return nil
}
