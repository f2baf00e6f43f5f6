// Package fio is one run of the fio load generator: its arguments in, its
// figures out.
package fio

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Result is what one job did, reads and writes together.
type Result struct {
	Requests int64
	IOPS     float64
	Bytes    float64 // a second
	P50, P99 time.Duration
	Max      time.Duration
}

type direction struct {
	Requests int64   `json:"total_ios"`
	IOPS     float64 `json:"iops"`
	Bytes    float64 `json:"bw_bytes"`
	Latency  struct {
		Max        float64            `json:"max"`
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

type report struct {
	Jobs []struct {
		Error int       `json:"error"`
		Read  direction `json:"read"`
		Write direction `json:"write"`
	} `json:"jobs"`
}

// Run runs fio with the arguments, each as on its command line. An I/O error
// or a failed verification is an error that holds what fio said.
func Run(args ...string) (Result, error) {
	cmd := exec.Command("fio", append([]string{"--name=job", "--output-format=json", "--group_reporting"}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	messages, text := split(out.Bytes())
	said.Write(messages)
	var r Result
	if err == nil {
		r, err = parse(text)
	}
	if err != nil {
		return Result{}, fmt.Errorf("fio %s: %w\n%s", strings.Join(args, " "), err, head(said.String()))
	}
	return r, nil
}

// split takes apart the messages that fio prints in front of its report, and
// the report, which starts on a line of its own.
func split(out []byte) (messages, report []byte) {
	if i := bytes.Index(out, []byte("{\n")); i >= 0 {
		return out[:i], out[i:]
	}
	return out, nil
}

func parse(text []byte) (Result, error) {
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return Result{}, fmt.Errorf("its report: %w", err)
	}
	if len(r.Jobs) != 1 {
		return Result{}, fmt.Errorf("%d jobs in its report, not 1", len(r.Jobs))
	}
	if e := r.Jobs[0].Error; e != 0 {
		return Result{}, fmt.Errorf("error %d", e)
	}
	return sum(r.Jobs[0].Read, r.Jobs[0].Write), nil
}

// sum adds the directions up; the latencies are those of the slower one.
func sum(d ...direction) Result {
	var r Result
	for _, d := range d {
		r.Requests += d.Requests
		r.IOPS += d.IOPS
		r.Bytes += d.Bytes
		r.P50 = max(r.P50, time.Duration(d.Latency.Percentile["50.000000"]))
		r.P99 = max(r.P99, time.Duration(d.Latency.Percentile["99.000000"]))
		r.Max = max(r.Max, time.Duration(d.Latency.Max))
	}
	return r
}

// head cuts a long complaint.
func head(s string) string { return s[:min(len(s), 2000)] }

// Gap is the longest time without a completion, in the log that --write_iops_log wrote
// with --log_avg_msec. Its resolution is that option: fio writes a line only with a
// completion, so two lines are at least as far apart as the gap between them is long.
func Gap(log string) (time.Duration, error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var last, longest int64
	lines := 0
	for in := bufio.NewScanner(f); in.Scan(); lines++ {
		field, _, _ := strings.Cut(in.Text(), ",")
		at, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s, line %d: %w", log, lines+1, err)
		}
		longest = max(longest, at-last)
		last = at
	}
	if lines == 0 {
		return 0, errors.New(log + " is empty: nothing ever completed")
	}
	return time.Duration(longest) * time.Millisecond, nil
}
