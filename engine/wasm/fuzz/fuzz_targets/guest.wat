;; Memory: below 1024 what `calls.rs` lays out, 1024 answers of the host, 4096 the heap, which begins with the script.
(module
  (import "rustmq:etl/data@VERSION" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@VERSION" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@VERSION" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@VERSION" "[method]context.params" (func $params (param i32 i32)))
  (import "rustmq:etl/columns@VERSION" "select" (func $select (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@VERSION" "declare" (func $declare (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@VERSION" "values" (func $script (param i32 i32)))
  IMPORTS
  (memory (export "memory") 4)
  (data (i32.const 0) "MEMORY")
  (global $heap (mut i32) (i32.const 4096))
  (global $meant (mut i32) (i32.const 0))
  ;; Where the answer of the export lies: 0 is ok.
  (global $answer (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (block $roomy
      (br_if $roomy (i32.lt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
      (drop (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))))
    (local.get $at))
  ;; A number as it is, if the call's flag says so; else cut to what may fit.
  (func $cut (param $raw i32) (param $flag i32) (param $mask i32) (result i32)
    (select (local.get $raw) (i32.and (local.get $raw) (local.get $mask))
      (i32.and (global.get $meant) (local.get $flag))))
  (func $handle (param $raw i32) (param $right i32) (result i32)
    (select (local.get $raw) (local.get $right) (i32.and (global.get $meant) (i32.const 8))))
  ;; Where fields are listed: the address as it is, else one of those that are laid out.
  (func $fields (param $raw i32) (result i32)
    (select (local.get $raw)
      (i32.add (i32.const FIELDS_AT)
        (i32.mul (i32.and (local.get $raw) (i32.const 15)) (i32.const 12)))
      (i32.and (global.get $meant) (i32.const 1))))
  ;; Where an answer lies: the address as it is, else a failure that is one if it is odd.
  (func $told (param $raw i32) (result i32)
    (select (i32.const FAILURE_AT) (call $cut (local.get $raw) (i32.const 1) (i32.const 0x3fff8))
      (i32.and (i32.and (local.get $raw) (i32.const 1))
        (i32.eqz (i32.and (global.get $meant) (i32.const 1))))))
  ;; The steps of one part: 32 those of `open`, 0 all others.
  (func $run (param $ctx i32) (param $rows i32) (param $out i32)
      (param $part i32) (param $pc i32) (param $end i32)
    (local $at i32)
    (global.set $answer (i32.const 0))
    (block $done (loop $next
      (local.set $at (local.get $pc))
      (local.set $pc (i32.add (local.get $pc) (i32.const 66)))
      (br_if $done (i32.gt_u (local.get $pc) (local.get $end)))
      (global.set $meant (i32.load8_u offset=1 (local.get $at)))
      (br_if $next
        (i32.ne (i32.and (global.get $meant) (i32.const 32)) (local.get $part)))
      (if (i32.and (global.get $meant) (i32.const 16))
        (then (global.set $answer (call $told (i32.load offset=2 (local.get $at))))))
      CODE)))
  ;; After a call that answers with a result: an `err` ends the guest, if the step's flag says so.
  (func $strict
    (if (i32.and (i32.shr_u (global.get $meant) (i32.const 6)) (i32.ne (i32.load8_u (i32.const 1024)) (i32.const 0)))
      (then (unreachable))))
  ;; The script is between the quotes of the params: each byte two letters, of which `a` is 0.
  (func (export "rustmq:etl/module@VERSION#open") (param $context i32) (result i32)
    (local $from i32) (local $end i32) (local $to i32)
    (call $params (local.get $context) (i32.const 1024))
    (local.set $to (i32.load (i32.const 1024)))
    (local.set $from (i32.add (local.get $to) (i32.const 1)))
    (local.set $end (i32.add (local.get $to) (i32.sub (i32.load offset=4 (i32.const 1024)) (i32.const 1))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
      (i32.store8 (local.get $to) (i32.or
        (i32.shl (i32.sub (i32.load8_u (local.get $from)) (i32.const 97)) (i32.const 4))
        (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (local.set $from (i32.add (local.get $from) (i32.const 2)))
      (br $next)))
    (local.set $from (i32.load (i32.const 1024)))
    (block $bare
      ;; all fields of the input and of both outputs, unless the first step's flag says otherwise
      (br_if $bare (i32.and
        (i32.gt_u (local.get $to) (local.get $from))
        (i32.shr_u (i32.load8_u offset=1 (local.get $from)) (i32.const 7))))
      (call $select (local.get $context) (i32.const 0) (i32.const FIELDS_AT) (i32.const 6) (i32.const 1024))
      (call $declare (local.get $context) (i32.const 0) (i32.const FIELDS_AT) (i32.const 6) (i32.const 1024))
      (call $declare (local.get $context) (i32.const 1) (i32.const FIELDS_AT) (i32.const 6) (i32.const 1024)))
    (call $run (local.get $context) (local.get $context) (local.get $context)
      (i32.const 32) (local.get $from) (local.get $to))
    (call $context_drop (local.get $context))
    (global.get $answer))
  ;; The script is the first value: from the data's begin to the second offset.
  (func $process (export "rustmq:etl/module@VERSION#process")
      (export "rustmq:etl/timed@VERSION#on-timers") (param $rows i32) (param $out i32) (result i32)
    (local $pc i32) (local $end i32)
    (global.set $heap (i32.const 4096))
    (call $script (local.get $rows) (i32.const 1024))
    (local.set $pc (i32.load offset=8 (i32.const 1024)))
    (local.set $end
      (i32.add (local.get $pc) (i32.load offset=4 (i32.load (i32.const 1024)))))
    (call $run (local.get $rows) (local.get $rows) (local.get $out)
      (i32.const 0) (local.get $pc) (local.get $end))
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (global.get $answer))
  ;; The same of the first entry's value: schema, three lists of keys, three of values.
  (func (export "rustmq:etl/migration@VERSION#migrate") (param $from i32)
      (param i32 i32 i32 i32 i32 i32)
      (param $offsets i32) (param i32) (param $data i32) (param i32 i32 i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $data) (i32.load offset=4 (local.get $offsets))))
    (call $run (local.get $from) (local.get $from) (local.get $from)
      (i32.const 0) (local.get $data) (local.get $end))
    (global.get $answer)))
