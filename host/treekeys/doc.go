// Package treekeys keeps the tree of a mount on an Arakoon group. Keys implements, over
// a node, the few methods that package fusefs/filetree asks of a replicated store. The
// two packages meet here, and do not know each other.
package treekeys
