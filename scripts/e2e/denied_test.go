package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"openvstorage/scripts/server"
)

// TestDirectoriesThatMayNotBeRead: a directory that may be entered and written is
// enough to make a data directory or ASDs in, and to export to. For an existing data
// directory it is enough that the directory above may be entered.
func TestDirectoriesThatMayNotBeRead(t *testing.T) {
	u := asNobody(t)
	u.must("mkdir -m 0333 blind; mkdir -p there/data there/asd; chmod 0111 there", "")
	start := func(data string, flags ...string) *system {
		s := &system{t: t, Ovs: server.Ovs{Bin: u.bin, Data: filepath.Join(u.dir, data), Flags: flags, User: nobody}}
		s.command = s.Up()
		s.run()
		return s
	}
	start("there/data", "--backend", "local")
	start("blind/one/data", "--asd", filepath.Join(u.dir, "blind/asd"), "--asd", filepath.Join(u.dir, "there/asd"), "--asd", filepath.Join(u.dir, "blind/deep/asd"))
	u.must("./ovs vdisk create a --size 8MiB --data blind/one/data >/dev/null && ./ovs vdisk export a blind/a.raw --data blind/one/data && stat -c %s blind/a.raw", "exported a\n8388608")
	u.must("./ovs vdisk export a blind/a.raw --data blind/one/data && ./ovs alba osd add $PWD/blind/more --data blind/one/data | grep -o 'ok$'", "exported a\nok")
	must(t, os.Chmod(filepath.Join(u.dir, "blind"), 0o700))
	u.must("ls -A blind | tr '\\n' ' '", "a.raw asd deep more one")
}
