package main

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is special about blocks of README.md, by their first line. All others
// are run as they stand, one after the other, in one copy of the tree.
var readmeBlocks = map[string]struct {
	skip    string // why it cannot run
	stays   bool   // it runs until it is stopped; wait for "ready"
	stopped bool   // "Stop it" stands before it
}{
	"make run":                          {stays: true},
	"make test":                         {skip: "it would run this test"},
	"ovs vdisk create vm1 --size 20GiB": {skip: "it boots a guest from an image that is not here"},
	"ovs up --data second --write-buffer 512MiB --nbd-tcp 127.0.0.1:10809 --metrics 127.0.0.1:9469": {stays: true},
	"mv data/asd/1 disk-away":             {stopped: true},
	"rm -r data/asd/2":                    {stopped: true},
	"scripts/cluster bin/ovs three 26400": {stays: true},
	"tar -czf data-backup.tar.gz data":    {stopped: true},
}

// TestREADME runs every sh block of README.md, in order, in a copy of the tree.
func TestREADME(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program anew")
	}
	blocks, seen := shBlocks(t, "../../README.md"), map[string]bool{}
	for _, block := range blocks {
		seen[firstLine(block)] = true
	}
	for line := range readmeBlocks {
		if !seen[line] {
			t.Errorf("no block of README.md begins with %q any more", line)
		}
	}
	r := newReader(t)
	for _, block := range blocks {
		special := readmeBlocks[firstLine(block)]
		// A failed block is told once; those after it may fail in its wake.
		if !t.Run(firstLine(block), func(t *testing.T) {
			for _, program := range []string{"make", "bash", "qemu-img", "qemu-io", "curl"} {
				if _, err := exec.LookPath(program); err != nil && strings.Contains(block, program) {
					t.Skipf("needs %s, which is not installed", program)
				}
			}
			switch {
			case special.skip != "":
				t.Skip(special.skip)
			case special.stays:
				r.start(t, block)
			default:
				if special.stopped {
					r.stop(t)
				}
				r.run(t, block)
			}
		}) {
			break
		}
	}
	r.stop(t)
}

// reader is somebody who follows README.md in two terminals.
type reader struct {
	dir     string // the copy of the tree
	env     string // a file that holds what the last block exported
	ports   *strings.Replacer
	running []*process
}

func newReader(t *testing.T) *reader {
	t.Helper()
	dir, err := os.MkdirTemp("", "readme") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &reader{dir: filepath.Join(dir, "tree"), env: filepath.Join(dir, "env")}
	copyTree(t, "../..", r.dir)
	// Ports that are free here, for those in the text.
	_, hosts, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	r.ports = strings.NewReplacer("127.0.0.1:10809", freePort(t), "127.0.0.1:9469", freePort(t), " 26400", " "+hosts)
	if err := os.WriteFile(r.env, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range r.running {
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		}
	})
	return r
}

func (r *reader) bash(block string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", "set -euo pipefail; . \"$README_ENV\"; "+r.ports.Replace(block)+"\nexport -p >\"$README_ENV\"")
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "README_ENV="+r.env, "OVS_DATA=", "MAKEFLAGS=", "DATA=data")
	return cmd
}

func (r *reader) run(t *testing.T, block string) {
	t.Helper()
	if out, err := r.bash(block).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s%s", err, block, out, r.outputs())
	}
}

// start runs a block in a terminal of its own.
func (r *reader) start(t *testing.T, block string) {
	t.Helper()
	cmd := r.bash(block)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what Ctrl-C reaches
	p, err := startUp(cmd, 10*time.Minute)                // make run builds first
	if err != nil {
		t.Fatal(err)
	}
	r.running = append(r.running, p)
}

// stop presses Ctrl-C in all terminals.
func (r *reader) stop(t *testing.T) {
	t.Helper()
	for _, p := range r.running {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT)
		<-p.exited
		if strings.Contains(p.out.String(), "ovs: ") {
			t.Errorf("ovs up did not stop well:\n%s", p.out.String())
		}
	}
	r.running = nil
}

func (r *reader) outputs() string {
	var all strings.Builder
	for _, p := range r.running {
		all.WriteString("\n--- output of ovs up:\n" + p.out.String())
	}
	return all.String()
}

func firstLine(block string) string {
	line, _, _ := strings.Cut(block, "\n")
	return line
}

// shBlocks returns the fenced blocks marked sh.
func shBlocks(t *testing.T, file string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "```sh\n")[1:] {
		block, _, closed := strings.Cut(part, "\n```")
		if !closed {
			t.Fatalf("a block is not closed: %q", part)
		}
		blocks = append(blocks, block)
	}
	if len(blocks) < 10 {
		t.Fatalf("%s has only %d sh blocks", file, len(blocks))
	}
	return blocks
}

// copyTree copies what a build of the program needs.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch top, _, _ := strings.Cut(name, "/"); {
		case top == ".git", top == "bin", top == "data", d.Name() == "testdata":
			if !d.IsDir() { // .git of a linked worktree
				return nil
			}
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), b, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
