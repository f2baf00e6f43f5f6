package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// release is a program.
type release struct {
	name  string
	bin   string
	level uint32 // the newest that it knows; 0: not found out yet
}

func (r release) String() string { return r.name }

// hosts reports whether the release can be a host of a cluster.
func (r release) hosts() bool {
	out, _ := exec.Command(r.bin, "up", "--help").CombinedOutput()
	return bytes.Contains(out, []byte("--join"))
}

// errNoCommit: the history here lacks a commit.
var errNoCommit = errors.New("it is in no history here (a shallow clone?)")

// build builds ovs from a tree into dir.
func build(ctx context.Context, name, tree, dir string, flags ...string) (release, error) {
	bin := filepath.Join(dir, "ovs-"+strings.ReplaceAll(name, " ", "-"))
	c := exec.CommandContext(ctx, cmp.Or(os.Getenv("GO"), "go"), append(append([]string{"build"}, flags...), "-o", bin, "openvstorage/cmd/ovs")...)
	c.Dir, c.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return release{}, fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return release{name: name, bin: bin}, nil
}

// buildCommit builds ovs of a commit. The tree is taken out of the history into dir: no work tree
// is added to the repository.
func buildCommit(ctx context.Context, commit, dir string) (release, error) {
	top, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return release{}, fmt.Errorf("%w: %w", errNoCommit, err)
	}
	id, err := git(ctx, top, "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^{commit}")
	if err != nil {
		return release{}, fmt.Errorf("commit %s: %w", commit, errNoCommit)
	}
	tree, archive := filepath.Join(dir, "tree-"+id[:12]), filepath.Join(dir, id[:12]+".tar")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return release{}, err
	}
	if _, err := git(ctx, top, "archive", "--format=tar", "--output="+archive, id); err != nil {
		return release{}, err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-x", "-f", archive, "-C", tree).CombinedOutput(); err != nil {
		return release{}, fmt.Errorf("tar: %w: %s", err, out)
	}
	return build(ctx, id[:12], tree, dir)
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(said.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// levels reports whether the release shows levels.
func (r release) levels() bool {
	out, _ := exec.Command(r.bin, "arakoon", "--help").CombinedOutput()
	return bytes.Contains(out, []byte("\n  level "))
}
