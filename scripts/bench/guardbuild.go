package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build is a program made from one state of the source.
type build struct {
	Commit  string `json:"commit"`
	Subject string `json:"subject"`
	Changed int    `json:"changed,omitempty"` // files that differ from the commit
	bin     string
}

func (b build) String() string {
	text := b.Commit[:min(12, len(b.Commit))] + " " + b.Subject
	if b.Changed > 0 {
		text += fmt.Sprintf(", with %d files changed and not committed", b.Changed)
	}
	return text
}

// buildBase builds ovs from a commit, in a work tree of its own below dir that
// is gone afterwards.
func buildBase(ctx context.Context, repo, commit, dir string) (b build, err error) {
	if b, err = describe(ctx, repo, commit); err != nil {
		return b, err
	}
	tree := filepath.Join(dir, "base-tree")
	if _, err := git(ctx, repo, "worktree", "add", "--quiet", "--detach", tree, b.Commit); err != nil {
		return b, err
	}
	defer func() {
		// Not under ctx: it is removed above all when the run is given up.
		if _, gone := git(context.WithoutCancel(ctx), repo, "worktree", "remove", "--force", tree); err == nil {
			err = gone
		}
	}()
	b.bin = filepath.Join(dir, "ovs-base")
	return b, compile(ctx, tree, b.bin)
}

// buildPresent builds ovs from the work tree as it is.
func buildPresent(ctx context.Context, repo, dir string) (build, error) {
	b, err := describe(ctx, repo, "HEAD")
	if err != nil {
		return b, err
	}
	changed, err := git(ctx, repo, "status", "--porcelain")
	if err != nil {
		return b, err
	}
	if changed != "" {
		b.Changed = len(strings.Split(changed, "\n"))
	}
	b.bin = filepath.Join(dir, "ovs-new")
	return b, compile(ctx, repo, b.bin)
}

// describe finds a commit by any of its names.
func describe(ctx context.Context, repo, name string) (b build, err error) {
	if b.Commit, err = git(ctx, repo, "rev-parse", "--verify", "--end-of-options", name+"^{commit}"); err == nil {
		b.Subject, err = git(ctx, repo, "show", "--no-patch", "--format=%s", b.Commit)
	}
	return b, err
}

// compile builds the way that make does, but for the release, which would make
// two programs of the same source differ.
func compile(ctx context.Context, tree, bin string) error {
	cmd := exec.CommandContext(ctx, cmp.Or(os.Getenv("GO"), "go"), "build", "-trimpath", "-buildvcs=false", "-o", bin, "./cmd/ovs")
	cmd.Dir, cmd.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", filepath.Base(bin), err, out)
	}
	return nil
}

func git(ctx context.Context, repo string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", repo}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// same reports whether two programs are the same, byte for byte.
func same(a, b string) (bool, error) {
	p, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	q, err := os.ReadFile(b)
	return bytes.Equal(p, q), err
}
