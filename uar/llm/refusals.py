"""Replies by which a model says that it will not answer, in the languages that are asked about most."""

import re

ENGLISH = r"\b(?:i (?:cannot|can['’]t|am unable to|won['’]t)|i['’]m (?:sorry|unable)|as an ai)\b"
OTHERS = (
    r"\bich kann (?:das |dies |ihnen |dir |diese \w+ )?(?:leider )?nicht|\btut mir leid|\bals ki\b",
    r"\bje ne (?:peux|suis) pas|\bje suis désolé|\ben tant qu['’]ia\b",
    r"\bno puedo\b|\blo siento\b|\bcomo (?:una )?ia\b|\bnão posso\b|\bdesculpe\b|\bnon posso\b|\bmi dispiace\b",
    r"\bя не могу\b|\bизвините\b|\bк сожалению\b|\bне в состоянии\b|لا أستطيع|لا يمكنني|آسف|عذرا|عذراً",
    "抱歉|对不起|對不起|我不能|我无法|我無法|无法回答|無法回答|申し訳|できません|お答えでき",
    "죄송|할 수 없습니다|ขออภัย|ขอโทษ|ไม่สามารถ",
)
REFUSAL = re.compile("|".join([ENGLISH, *OTHERS]), re.IGNORECASE)
