//! Instructions of BPF (RFC 9669), as many as are needed here, with jumps to names.

use std::collections::BTreeMap;

/// A register. `R10` is the frame pointer, which stands behind the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
    R10,
}

/// How much is loaded or stored: the bits of the opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// Second operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Of(Reg),
    Is(i32),
}

/// What makes a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
}

/// Arithmetic of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    Add = 0x00,
    And = 0x50,
    Move = 0xb0,
}

const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const STORE_VALUE: u8 = 0x62;
const LOAD_WIDE: u8 = 0x18;
const ALU64: u8 = 0x07;
const JUMP: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Bit of the opcode: the second operand is a register.
const OF_REGISTER: u8 = 0x08;
/// In the place of a source: the number is the descriptor of a map.
const MAP: u8 = 1;

/// A program that is being written. Jumps go forward, to labels that are set behind them.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<[u8; 8]>,
    jumps: BTreeMap<&'static str, Vec<usize>>,
}

impl Assembler {
    fn push(&mut self, code: u8, (to, from): (u8, u8), offset: i16, value: i32) -> &mut Self {
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let mut instruction = [code, registers, 0, 0, 0, 0, 0, 0];
        instruction[2..4].copy_from_slice(&offset.to_ne_bytes());
        instruction[4..].copy_from_slice(&value.to_ne_bytes());
        self.instructions.push(instruction);
        self
    }

    /// Appends an operation on a register and an operand.
    fn operate(&mut self, code: u8, left: Reg, right: Value) -> &mut Self {
        match right {
            Value::Of(right) => self.push(code | OF_REGISTER, (left as u8, right as u8), 0, 0),
            Value::Is(value) => self.push(code, (left as u8, 0), 0, value),
        }
    }

    /// Notes that the next instruction jumps to a label.
    fn aim(&mut self, to: &'static str) -> &mut Self {
        self.jumps.entry(to).or_default().push(self.instructions.len());
        self
    }

    /// Loads from `at`, plus an offset.
    pub(super) fn load(&mut self, size: Size, to: Reg, (at, offset): (Reg, i16)) -> &mut Self {
        self.push(LOAD | size as u8, (to as u8, at as u8), offset, 0)
    }

    /// Stores to `at`, plus an offset.
    pub(super) fn store(
        &mut self,
        size: Size,
        (at, offset): (Reg, i16),
        value: Value,
    ) -> &mut Self {
        match value {
            Value::Of(from) => self.push(STORE | size as u8, (at as u8, from as u8), offset, 0),
            Value::Is(value) => self.push(STORE_VALUE | size as u8, (at as u8, 0), offset, value),
        }
    }

    pub(super) fn alu(&mut self, what: Do, to: Reg, value: Value) -> &mut Self {
        self.operate(ALU64 | what as u8, to, value)
    }

    /// Loads a map, by its descriptor.
    pub(super) fn load_map(&mut self, to: Reg, map: i32) -> &mut Self {
        self.push(LOAD_WIDE, (to as u8, MAP), 0, map).push(0, (0, 0), 0, 0)
    }

    /// Jumps to a label.
    pub(super) fn jump(&mut self, to: &'static str) -> &mut Self {
        self.aim(to).push(JUMP, (0, 0), 0, 0)
    }

    /// Jumps to a label if the comparison holds; words are compared without a sign.
    pub(super) fn jump_if(
        &mut self,
        left: Reg,
        is: If,
        right: Value,
        to: &'static str,
    ) -> &mut Self {
        self.aim(to).operate(JUMP | is as u8, left, right)
    }

    /// Calls a function of the kernel's.
    pub(super) fn call(&mut self, function: i32) -> &mut Self {
        self.push(CALL, (0, 0), 0, function)
    }

    pub(super) fn exit(&mut self) -> &mut Self {
        self.push(EXIT, (0, 0), 0, 0)
    }

    /// Sets a label here. It may be set again, for jumps that stand between the two.
    pub(super) fn label(&mut self, name: &'static str) -> &mut Self {
        let here = self.instructions.len();
        for at in self.jumps.remove(name).unwrap_or_default() {
            // Programs are far shorter than an offset reaches.
            let offset = (here - at - 1) as u16;
            self.instructions[at][2..4].copy_from_slice(&offset.to_ne_bytes());
        }
        self
    }

    /// The program's octets.
    ///
    /// # Panics
    /// When a label was not set: such a program cannot be written.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        assert!(self.jumps.is_empty(), "labels that are not set: {:?}", self.jumps.keys());
        self.instructions.concat()
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_a_compiler() {
        // What clang 14 makes of the same, by `llvm-objdump --disassemble`, on a little-endian machine.
        let mut assembler = Assembler::default();
        assembler
            .load(Size::Word, Reg::R2, (Reg::R1, 80))
            .alu(Do::Move, Reg::R3, Value::Of(Reg::R1))
            .alu(Do::Add, Reg::R3, Value::Is(14))
            .jump_if(Reg::R3, If::Greater, Value::Of(Reg::R2), "pass")
            .load(Size::Half, Reg::R1, (Reg::R1, 12))
            .jump_if(Reg::R1, If::NotEqual, Value::Is(8), "pass")
            .store(Size::Word, (Reg::R10, -8), Value::Of(Reg::R1))
            .call(23)
            .jump("end")
            .label("pass")
            .alu(Do::Move, Reg::R0, Value::Is(-1))
            .label("end")
            .exit();
        let expected: [[u8; 8]; 11] = [
            [0x61, 0x12, 0x50, 0, 0, 0, 0, 0],
            [0xbf, 0x13, 0, 0, 0, 0, 0, 0],
            [0x07, 0x03, 0, 0, 0x0e, 0, 0, 0],
            [0x2d, 0x23, 5, 0, 0, 0, 0, 0],
            [0x69, 0x11, 0x0c, 0, 0, 0, 0, 0],
            [0x55, 0x01, 3, 0, 8, 0, 0, 0],
            [0x63, 0x1a, 0xf8, 0xff, 0, 0, 0, 0],
            [0x85, 0, 0, 0, 0x17, 0, 0, 0],
            [0x05, 0, 1, 0, 0, 0, 0, 0],
            [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(assembler.finish(), expected.concat());
    }
}
