package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	albahere "openvstorage/alba/embedded"
	"openvstorage/fusefs"
	"openvstorage/fusefs/transport"
	"openvstorage/internal/control"
	"openvstorage/internal/size"
)

// Sizes that --write-buffer and --map-cache take.
const (
	writeBufferDefault = 2 * size.GiB
	writeBufferMin     = 64 * size.MiB
	mapCacheDefault    = 256 * size.MiB
	mapCacheMin        = 16 * size.MiB
	nbdMemoryDefault   = size.GiB
	nbdMemoryMin       = 64 * size.MiB
	uploadsMax         = 256
)

// upFlags are the flags of `ovs up`.
type upFlags struct {
	nbdUnix     string
	socketDir   string // "": the data directory
	nbdTCP      []string
	insecure    bool
	metrics     string
	writeBuffer size.Bytes
	mapCache    size.Bytes
	nbdMemory   size.Bytes
	nbdClients  int
	uploads     int
	readWait    period // 0: for ever
	backend     string
	alba        albaFlags
	acceptOlder bool
	mount       string
	allowOther  bool
	fuse        fuseWays
	fuseMemory  size.Bytes // 0: the default of the mount
	self        bool       // tests open files of the mount in this process
	logLevel    slog.Level
}

func (a *app) up() *cobra.Command {
	f := upFlags{writeBuffer: writeBufferDefault, mapCache: mapCacheDefault, nbdMemory: nbdMemoryDefault, nbdClients: 1024, uploads: 4, logLevel: slog.LevelInfo}
	c := &cobra.Command{
		Use:   "up --data DIR",
		Short: "serve the vDisks of a data directory, in the foreground",
		Long: `ovs up serves the vDisks of a data directory over NBD and, with --mount, as files,
and manages them.

It makes the directory if it is absent or empty, prints one line for each
service and then "ready", and runs until SIGINT or SIGTERM, which stop it
cleanly. A second signal ends it at once: nothing acknowledged is lost, but the
next start has to look at more.`,
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.directory()
			if err != nil {
				return err
			}
			if c.Flags().Changed("asds") && f.alba.asds == 0 {
				return usagef("%s: --asds: give 1 to %d", c.CommandPath(), albahere.MaxASDs)
			}
			if err := f.check(c.CommandPath()); err != nil {
				return err
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			if err := f.socketsFor(c.CommandPath(), dir); err != nil {
				return err
			}
			if f.mount != "" {
				if f.mount, err = filepath.Abs(f.mount); err != nil {
					return err
				}
			}
			setProcs()
			ownersAlone()
			return a.serve(c.Context(), dir, f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.nbdUnix, "nbd-unix", "", "NBD unix socket `path` (default nbd.sock in --socket-dir)")
	flags.StringVar(&f.socketDir, "socket-dir", "", "make the sockets in this `directory`, and links to them in the data directory: for one with a path of more than 98 bytes, which leave no room for the name of a socket (default: the data directory)")
	_ = c.MarkFlagDirname("socket-dir")
	flags.StringSliceVar(&f.nbdTCP, "nbd-tcp", nil, "serve NBD on this TCP `address` too; may be given again")
	flags.BoolVar(&f.insecure, "insecure", false, "allow TCP addresses that other machines can reach: nothing is encrypted, nobody is asked who they are")
	flags.StringVar(&f.metrics, "metrics", "", "serve Prometheus metrics on this TCP `address`, path /metrics")
	flags.Var(&f.writeBuffer, "write-buffer", fmt.Sprintf("disk space for writes that are not in the backend yet, and for reads; at least %v", writeBufferMin))
	flags.Var(&f.mapCache, "map-cache", fmt.Sprintf("memory for the maps of all vDisks; at least %v", mapCacheMin))
	flags.Var(&f.nbdMemory, "nbd-memory", fmt.Sprintf("memory for NBD clients, beside 1 MiB that each may always have; at least %v", nbdMemoryMin))
	flags.IntVar(&f.nbdClients, "nbd-clients", f.nbdClients, "NBD connections at once, `n` at most; a quarter is kept for this machine, TCP listeners share the rest, and one address has half of that")
	flags.IntVar(&f.uploads, "uploads", f.uploads, "put `n` SCOs to the backend side by side, each of up to 16 MiB in memory")
	flags.Var(&f.readWait, "read-wait", "fail a read after this `time`, such as 90s or 1h, if all the while too few disks answer to make what it reads; 0 for at once (default: it waits until they do)")
	flags.StringVar(&f.mount, "mount", "", "mount the vDisks as files NAME.raw on this empty `directory`, by FUSE")
	flags.BoolVar(&f.allowOther, "allow-other", false, "let other users than the one of this process into the mount")
	flags.Var(&f.fuse, "fuse", "`way` of the mount's requests: ring (an io_uring; as root, echo Y > /sys/module/fuse/parameters/enable_uring), device, or auto: ring if the kernel offers it")
	flags.Var(&f.fuseMemory, "fuse-memory", fmt.Sprintf("memory for requests of the mount that wait for something, and for its rings; at least %v (default %v, or what its rings need, if more)", size.Bytes(fusefs.MemoryMin), size.Bytes(transport.MemoryDefault)))
	flags.Lookup("fuse-memory").DefValue = "" // it is said
	flags.StringVar(&f.backend, "backend", "", "`kind` of backend of a new data directory: alba or local (default alba)")
	f.alba.add(flags)
	flags.BoolVar(&f.alba.allowUnmounted, "allow-unmounted", false, "make what is new, the data directory or ASDs, also in directories that look like mount points with nothing mounted")
	flags.BoolVar(&f.acceptOlder, "accept-older", false, "go on with a data directory that is an older copy than its disks have seen, as no newer one is left; nothing is deleted on disks until `ovs alba backend resume-deletion`")
	flags.TextVar(&f.logLevel, "log-level", f.logLevel, "log this and what is worse: debug, info, warn, error")
	return c
}

// check refuses flags that cannot work.
func (f *upFlags) check(command string) error {
	if f.writeBuffer < writeBufferMin {
		return usagef("%s: --write-buffer %v is too small; give it at least %v", command, f.writeBuffer, writeBufferMin)
	}
	if f.mapCache < mapCacheMin {
		return usagef("%s: --map-cache %v is too small; give it at least %v", command, f.mapCache, mapCacheMin)
	}
	if f.nbdMemory < nbdMemoryMin {
		return usagef("%s: --nbd-memory %v is too small; give it at least %v", command, f.nbdMemory, nbdMemoryMin)
	}
	if f.nbdClients < 1 {
		return usagef("%s: --nbd-clients %d: nobody could connect; give it at least 1", command, f.nbdClients)
	}
	if f.uploads < 1 || f.uploads > uploadsMax {
		return usagef("%s: --uploads %d: give it 1 to %d", command, f.uploads, uploadsMax)
	}
	if f.backend != "" && f.backend != backendALBA && f.backend != backendLocal {
		return usagef("%s: --backend %q: give alba or local", command, f.backend)
	}
	if err := f.alba.check(command); err != nil {
		return err
	}
	if f.allowOther && f.mount == "" {
		return usagef("%s: --allow-other says who may use the mount; give --mount DIR too", command)
	}
	if f.fuse.set && f.mount == "" {
		return usagef("%s: --fuse is about the mount; give --mount DIR too", command)
	}
	if f.fuseMemory != 0 && f.mount == "" {
		return usagef("%s: --fuse-memory is about the mount; give --mount DIR too", command)
	}
	if f.fuseMemory != 0 && int64(f.fuseMemory) < fusefs.MemoryMin {
		return usagef("%s: --fuse-memory %v is too small; give it at least %v", command, f.fuseMemory, size.Bytes(fusefs.MemoryMin))
	}
	if f.insecure {
		return nil
	}
	for _, address := range f.nbdTCP {
		if err := control.CheckLoopback(address); err != nil {
			return usagef("%s: --nbd-tcp: %w", command, err)
		}
	}
	if f.metrics != "" {
		if err := control.CheckLoopback(f.metrics); err != nil {
			return usagef("%s: --metrics: %w", command, err)
		}
	}
	return nil
}

// setProcs lets more goroutines run than there are cores: one that waits for a
// sync keeps its processor for a while. The environment has the last word.
func setProcs() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, 2*runtime.GOMAXPROCS(0)))
	}
}
