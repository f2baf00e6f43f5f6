package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Build builds ovs into dir as it is shipped (without cgo), and returns the name of the
// program. If OVS_BIN is set in the environment, it returns that program.
func Build(dir string) (string, error) {
	if bin := os.Getenv("OVS_BIN"); bin != "" {
		return bin, nil
	}
	bin := filepath.Join(dir, "ovs")
	cmd := exec.Command("go", "build", "-o", bin, "openvstorage/cmd/ovs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ovs: %w\n%s", err, out)
	}
	return bin, nil
}

// Ovs is the program and a data directory.
type Ovs struct {
	Bin   string
	Data  string
	Flags []string            // of `ovs up`
	User  *syscall.Credential // that it runs as; nil: this one
}

// Up is `ovs up` on the directory.
func (o Ovs) Up() Command {
	return Command{
		Name:      "ovs",
		Args:      append([]string{o.Bin, "up", "--data", o.Data}, o.Flags...),
		Socket:    filepath.Join(o.Data, "nbd.sock"),
		ReadyLine: "ready",
		User:      o.User,
	}
}

// Run runs one command line against the directory, and returns its standard
// output; the error holds its standard error.
func (o Ovs) Run(args ...string) ([]byte, error) {
	cmd := exec.Command(o.Bin, append(args, "--data", o.Data)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ovs %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out.Bytes(), nil
}

// Timed runs one command line and returns how long the whole process took,
// from its start to its end.
func (o Ovs) Timed(args ...string) (time.Duration, error) {
	start := time.Now()
	_, err := o.Run(args...)
	return time.Since(start), err
}

// Info is the part of `ovs vdisk info --json` that scripts look at, in bytes.
type Info struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
	Local   int64  `json:"local"`
	Stored  int64  `json:"stored"`
	Backlog int64  `json:"backlog"`
}

// Info asks for the state of a vDisk.
func (o Ovs) Info(name string) (Info, error) {
	out, err := o.Run("vdisk", "info", name, "--json")
	if err != nil {
		return Info{}, err
	}
	var info Info
	if err := json.Unmarshal(out, &info); err != nil {
		return Info{}, fmt.Errorf("ovs vdisk info %s --json: %w in %q", name, err, out)
	}
	return info, nil
}
