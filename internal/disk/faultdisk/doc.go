// Package faultdisk is a disk.FS that breaks on purpose. It counts every operation
// and passes it to another disk.FS, unless a Rule makes it fail, write short, corrupt
// its bytes, do nothing, or wait.
//
// A rule matches an operation by kind, path and turn (skip the first n that match,
// then fire m times). Rules may be added and removed while I/O goes on. If several
// rules fire on an operation, all their Before functions run, and the first rule that
// has an effect decides. A Quota makes a subtree run full. It gives room back when
// files shrink or are removed.
//
// Operations on a file are matched and counted under the name that it was opened by,
// even after a rename.
//
// If a rule fails a Datasync or Sync, that does not reach the disk below. If the file
// below has a method SyncFailed, as in package crashdisk, it is called: what was not
// synced is lost then, as on Linux.
package faultdisk
